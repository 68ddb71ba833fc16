"""When a schedule is due.

Schedules follow the clocks on the wall. What happens to a time that a change of the clocks skips or repeats is not
promised by Cloud Scheduler; here it is decided. A schedule that names hours is due at the end of the gap, and once
where the hour comes twice. One for every hour is not due in a gap, and twice where the hour comes twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from cloudrun_jobs.cron.dialect import FIELDS, is_english, is_hourly, validate


def next_time(expression: str, time_zone: str, after: datetime) -> datetime | None:
    """Return when the schedule is due next, later than `after`, in UTC; both are aware.

    None for the English-like forms: whether "every 2 hours" means even hours or two hours from its start, only
    Cloud Scheduler knows.
    """
    return min(_nearest(expression, ZoneInfo(time_zone), after, "next"), default=None)


def last_time(expression: str, time_zone: str, before: datetime) -> datetime | None:
    """Return when the schedule was due last, at `before` or earlier; otherwise as `next_time()`."""
    return max(_nearest(expression, ZoneInfo(time_zone), before, "prev"), default=None)


def _nearest(expression: str, zone: ZoneInfo, than: datetime, direction: str) -> Iterator[datetime]:
    """Yield the nearest due time in one direction, of each of the two passes where an hour comes twice."""
    validate(expression)
    if is_english(expression):
        return
    hourly = is_hourly(expression)
    for fold in (0, 1) if hourly else (0,):
        for wall in _walls(expression, _beside(than.astimezone(zone), direction), direction):
            due = _instant(wall.replace(tzinfo=zone, fold=fold), in_gap=not hourly)
            if due is not None and (due > than if direction == "next" else due <= than):
                yield due
                break


def _walls(expression: str, start: datetime, direction: str) -> Iterator[datetime]:
    """Yield what clocks on the wall show when the schedule is due, from `start`."""
    from croniter import croniter  # Costs 50 ms that a process which asks for no times need not pay.

    times: Any = croniter(_spelled_out(expression), start, ret_type=datetime)
    while True:
        yield times.get_next() if direction == "next" else times.get_prev()


def _spelled_out(expression: str) -> str:
    """Write ranges and steps as lists: croniter takes "0-0" for "*", and its releases differ in other forms."""
    parts = zip(FIELDS, expression.split(" "), strict=True)
    return " ".join(part if part == "*" else _listed(field.values(part)) for field, part in parts)


def _listed(values: set[int]) -> str:
    return ",".join(map(str, sorted(values)))


def _beside(local: datetime, direction: str) -> datetime:
    """Return a wall clock's time with nothing due between it and `local` in one direction."""
    wall = local.replace(tzinfo=None, second=0, microsecond=0)
    change = _change_near(local)
    return wall - change if direction == "next" else wall + timedelta(minutes=1) + change


def _change_near(local: datetime) -> timedelta:
    """By how much clocks change within a day of the time; mostly they do not."""
    day = timedelta(days=1)
    earlier, later = ((local.astimezone(UTC) + step).astimezone(local.tzinfo) for step in (-day, day))
    return abs((later.utcoffset() or timedelta()) - (earlier.utcoffset() or timedelta()))


def _instant(local: datetime, *, in_gap: bool) -> datetime | None:
    """Return when a wall clock shows a time; where clocks skip it, when the gap ends, or None.

    In UTC, as two times of one zone are compared by what clocks show.
    """
    while not _exists(local):
        if not in_gap:
            return None
        local += timedelta(minutes=1)
    return local.astimezone(UTC)


def _exists(local: datetime) -> bool:
    return local.astimezone(UTC).astimezone(local.tzinfo).replace(fold=0) == local.replace(fold=0)
