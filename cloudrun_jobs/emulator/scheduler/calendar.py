"""Compute when a schedule is due, from matching days and wall-clock times in a time zone.

A time that a DST change skips does not occur, and a time that occurs twice is due twice. The service guarantees
neither ("may observe execution anomalies"), so do not rely on it.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from zoneinfo import ZoneInfo

# The next 29 February can be eight years away, around a century that is not a leap year.
SEARCH_HORIZON = timedelta(days=8 * 366)


class Schedule(Protocol):
    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first due instant after this one, or None if the schedule is never due."""


@dataclass(frozen=True)
class Calendar:
    """Times of day on the days that `on` selects."""

    on: Callable[[date], bool]
    times: tuple[time, ...]
    zone: ZoneInfo

    def next_after(self, instant: datetime) -> datetime | None:
        day = instant.astimezone(self.zone).date()
        last = day + SEARCH_HORIZON
        while day <= last:
            if self.on(day):
                instants = _instants(self.times, day, self.zone)
                position = bisect_right(instants, instant)
                if position < len(instants):
                    return instants[position]
            day += timedelta(days=1)
        return None


@dataclass(frozen=True)
class Interval:
    """A fixed interval, in whole minutes."""

    every: timedelta

    def next_after(self, instant: datetime) -> datetime | None:
        return (instant + self.every).replace(second=0, microsecond=0)


@lru_cache(maxsize=256)
def _instants(times: tuple[time, ...], day: date, zone: ZoneInfo) -> tuple[datetime, ...]:
    return tuple(sorted({instant for at in times for instant in _occurrences(datetime.combine(day, at), zone)}))


def _occurrences(local: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    """Yield the instants of a wall-clock time: usually one, none in a DST gap, two in an overlap."""
    for fold in (0, 1):
        instant = local.replace(tzinfo=zone, fold=fold).astimezone(UTC)
        if instant.astimezone(zone).replace(tzinfo=None) == local:
            yield instant
