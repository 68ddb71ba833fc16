"""When a schedule is due, found by looking at each minute: an oracle that knows nothing of croniter."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)
DAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
MONTHS = ["", "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
NAMES = {name: str(number) for names in (DAYS, MONTHS) for number, name in enumerate(names)}


def due_minutes(expression: str, zone: ZoneInfo, start: datetime, end: datetime) -> list[datetime]:
    """The instants from `start` to `end`, both included, at which the schedule is due."""
    schedule = Schedule(expression)
    first = start.astimezone(UTC).replace(second=0, microsecond=0)
    return [now for now in _minutes(first, end) if now >= start and schedule.is_due(now, zone)]


class Schedule:
    def __init__(self, expression: str) -> None:
        ranges = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
        self.minutes, self.hours, self.of_month, self.months, self.of_week = (
            {number for number in range(low, high + 1) if _matches(field, low, high, number)}
            for field, (low, high) in zip(expression.split(), ranges, strict=True)
        )
        self.either = "*" not in (expression.split()[2], expression.split()[4])

    def is_due(self, now: datetime, zone: ZoneInfo) -> bool:
        local, before = now.astimezone(zone), (now - MINUTE).astimezone(zone)
        if len(self.hours) == 24:
            return self.names(local)
        skipped = _minutes(before.replace(tzinfo=None) + MINUTE, local.replace(tzinfo=None) - MINUTE)
        return (not local.fold and self.names(local)) or any(map(self.names, skipped))

    def names(self, wall: datetime) -> bool:
        """Whether the expression names what this clock shows."""
        if not (wall.minute in self.minutes and wall.hour in self.hours and wall.month in self.months):
            return False
        day, week = (
            wall.day in self.of_month,
            not self.of_week.isdisjoint({wall.isoweekday(), wall.isoweekday() % 7}),
        )
        return (day or week) if self.either else (day and week)


def _matches(field: str, low: int, high: int, number: int) -> bool:
    return any(_matches_item(item, low, high, number) for item in field.split(","))


def _matches_item(item: str, low: int, high: int, number: int) -> bool:
    span, _, step = item.partition("/")
    ends = [int(NAMES.get(end, end)) for end in span.split("-")] if span != "*" else [low, high]
    return ends[0] <= number <= ends[-1] and (number - ends[0]) % int(step or 1) == 0


def _minutes(first: datetime, last: datetime) -> Iterator[datetime]:
    while first <= last:
        yield first
        first += MINUTE
