"""Compute when a schedule is due.

Schedules follow local time. Cloud Scheduler does not define what happens at a DST change; this module does. A
schedule that names hours is due at the end of a gap, and once in a repeated hour. One that is due in every hour is
not due in a gap, and twice in a repeated hour.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from cloudrun_jobs.cron.dialect import FIELDS, is_hourly, validate
from cloudrun_jobs.cron.dst import offset
from cloudrun_jobs.cron.english import is_english


def next_time(expression: str, time_zone: str, after: datetime) -> datetime | None:
    """Return the first due time later than `after`, in UTC; both are aware.

    None for the English-like forms: whether "every 2 hours" means even hours, or counts from the creation of the
    Scheduler job, is not documented. Raises `InvalidSchedule`.
    """
    return min(_nearest(expression, ZoneInfo(time_zone), after, "next"), default=None)


def last_time(expression: str, time_zone: str, before: datetime) -> datetime | None:
    """Return the last due time not later than `before`; otherwise like `next_time()`."""
    return max(_nearest(expression, ZoneInfo(time_zone), before, "prev"), default=None)


def _nearest(expression: str, zone: ZoneInfo, than: datetime, direction: str) -> Iterator[datetime]:
    """Yield the nearest due time in one direction; of a repeated hour, that of each pass."""
    validate(expression)
    if is_english(expression):
        return
    hourly = is_hourly(expression)
    for fold in (0, 1) if hourly else (0,):
        for local in _local_times(expression, _beside(than.astimezone(zone), direction), direction):
            due = _to_utc(local.replace(tzinfo=zone, fold=fold), in_gap=not hourly)
            if due is not None and (due > than if direction == "next" else due <= than):
                yield due
                break


def _local_times(expression: str, start: datetime, direction: str) -> Iterator[datetime]:
    """Yield the naive local times at which the schedule is due, from `start`."""
    from croniter import croniter  # Takes 50 ms, and most processes compute no times.

    times: Any = croniter(_expanded(expression), start, ret_type=datetime)
    while True:
        yield times.get_next() if direction == "next" else times.get_prev()


def _expanded(expression: str) -> str:
    """Write ranges and steps as lists: croniter takes "0-0" for "*", and its releases differ in other forms."""
    parts = zip(FIELDS, expression.split(" "), strict=True)
    return " ".join(
        part if part == "*" else ",".join(map(str, sorted(field.values(part)))) for field, part in parts
    )


def _beside(local: datetime, direction: str) -> datetime:
    """Return a naive local time from which a search in one direction misses nothing."""
    start = local.replace(tzinfo=None, second=0, microsecond=0)
    change = _change_near(local)
    return start - change if direction == "next" else start + timedelta(minutes=1) + change


def _change_near(local: datetime) -> timedelta:
    """Return by how much the UTC offset changes within a day of the time."""
    now, day = local.astimezone(UTC), timedelta(days=1)
    return abs(offset(now + day, local.tzinfo) - offset(now - day, local.tzinfo))


def _to_utc(local: datetime, *, in_gap: bool) -> datetime | None:
    """Return the time in UTC; for a time in a gap, the end of the gap, or None.

    Two times of one zone are not comparable: Python compares their local times.
    """
    while not _exists(local):
        if not in_gap:
            return None
        local += timedelta(minutes=1)
    return local.astimezone(UTC)


def _exists(local: datetime) -> bool:
    return local.astimezone(UTC).astimezone(local.tzinfo).replace(fold=0) == local.replace(fold=0)
