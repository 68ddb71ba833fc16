"""When a schedule is due: days that match and times of day, by the clocks on the wall of a time zone.

A time that a change of the clocks skips does not occur, and one that occurs twice is due twice. The service
promises neither ("may observe execution anomalies"), so nothing should be built on it.
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

# The 29th of February may be eight years away, around a century that is no leap year.
SEARCH_HORIZON = timedelta(days=8 * 366)


class Schedule(Protocol):
    def next_after(self, instant: datetime) -> datetime | None:
        """The first instant later than this one, or None when there is none."""


@dataclass(frozen=True)
class Calendar:
    """Certain times of day on certain days."""

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
    """Again and again after the same time."""

    every: timedelta

    def next_after(self, instant: datetime) -> datetime | None:
        return instant + self.every


@lru_cache(maxsize=256)
def _instants(times: tuple[time, ...], day: date, zone: ZoneInfo) -> tuple[datetime, ...]:
    return tuple(sorted({instant for at in times for instant in _occurrences(datetime.combine(day, at), zone)}))


def _occurrences(local: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    """The instants at which clocks on the wall show a time: mostly one, none in a gap, two in an overlap."""
    for fold in (0, 1):
        instant = local.replace(tzinfo=zone, fold=fold).astimezone(UTC)
        if instant.astimezone(zone).replace(tzinfo=None) == local:
            yield instant
