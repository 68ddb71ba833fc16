"""Which changes of the clocks a schedule is caught by."""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

from cloudrun_jobs.cron.dialect import FIELDS, is_english, is_hourly


def next_dst_conflict(expression: str, time_zone: str, after: datetime) -> datetime | None:
    """Return the next change of the clocks, within a year, that skips or repeats a time of day of the schedule.

    None for one that is due in every hour, which misses nothing that matters, and for the English-like forms.
    """
    if is_english(expression) or is_hourly(expression):
        return None
    minutes, hours = (field.values(part) for field, part in zip(FIELDS, expression.split(" ")[:2], strict=False))
    today = after.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    times = {time(hour, minute) for hour in hours for minute in minutes}
    for change, low, high in _changes(ZoneInfo(time_zone), today):
        days = {low.date(), high.date()}
        if any(low <= datetime.combine(day, at) < high for day in days for at in times):
            return change
    return None


@lru_cache(maxsize=16)
def _changes(zone: ZoneInfo, after: datetime) -> tuple[tuple[datetime, datetime, datetime], ...]:
    """Return the changes of the clocks in a year, each with the span of wall clock time it skips or repeats."""
    days = [after + timedelta(days=number) for number in range(367)]
    changes = [
        _change(zone, day) for day, next_day in pairwise(days) if _offset(day, zone) != _offset(next_day, zone)
    ]
    return tuple(_disturbed(at, before, _offset(at, zone)) for at, before in changes)


def _change(zone: ZoneInfo, day: datetime) -> tuple[datetime, timedelta]:
    """Return the minute of the day at which the clocks change, and their offset before."""
    before = _offset(day, zone)
    minutes = range(24 * 60 + 1)
    first = bisect_left(minutes, True, key=lambda minute: _offset(day + timedelta(minutes=minute), zone) != before)
    return day + timedelta(minutes=first), before


def _disturbed(at: datetime, before: timedelta, after: timedelta) -> tuple[datetime, datetime, datetime]:
    wall = at.replace(tzinfo=None)
    return at, wall + min(before, after), wall + max(before, after)


def _offset(moment: datetime, zone: ZoneInfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()
