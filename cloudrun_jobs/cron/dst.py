"""Find the DST changes that skip or repeat a time of a schedule."""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, datetime, time, timedelta, tzinfo
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

from cloudrun_jobs.cron.dialect import FIELDS, is_hourly
from cloudrun_jobs.cron.english import is_english


def next_dst_conflict(expression: str, time_zone: str, after: datetime) -> datetime | None:
    """Return the next DST change, within a year, that skips or repeats a time of day of the schedule.

    None for a schedule that is due in every hour, where one tick does not matter, and for the English-like forms.
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
    """Return the DST changes of a year, each with the span of local time that it skips or repeats."""
    days = [after + timedelta(days=number) for number in range(367)]
    return tuple(
        _change(zone, day) for day, next_day in pairwise(days) if offset(day, zone) != offset(next_day, zone)
    )


def _change(zone: ZoneInfo, day: datetime) -> tuple[datetime, datetime, datetime]:
    before = offset(day, zone)
    minutes = range(24 * 60 + 1)
    first = bisect_left(minutes, True, key=lambda minute: offset(day + timedelta(minutes=minute), zone) != before)
    at = day + timedelta(minutes=first)
    after, local = offset(at, zone), at.replace(tzinfo=None)
    return at, local + min(before, after), local + max(before, after)


def offset(moment: datetime, zone: tzinfo | None) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()
