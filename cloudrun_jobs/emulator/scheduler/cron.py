"""Parse the cron expressions of Cloud Scheduler, as strictly as the service.

docs/schedules.md has the grammar, and the source of each rule.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, time
from typing import TYPE_CHECKING

from cloudrun_jobs.emulator.scheduler.calendar import Calendar

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
PART = re.compile(r"(?P<first>\*|[0-9A-Z]+)(?:-(?P<last>[0-9A-Z]+))?(?:/(?P<step>[0-9]+))?")


class InvalidSchedule(ValueError):
    """The expression is not valid in Cloud Scheduler's dialect."""


@dataclass(frozen=True)
class Field:
    """One of the five fields: its range, and the names for its numbers."""

    name: str
    minimum: int
    maximum: int
    names: tuple[str, ...] = ()

    def parse(self, text: str) -> frozenset[int]:
        return frozenset(value for part in text.split(",") for value in self._part(part))

    def _part(self, text: str) -> range:
        match = PART.fullmatch(text)
        if match is None:
            raise InvalidSchedule(f"expected a number, a range or * in the {self.name}, got {text!r}")
        first, last, step = match["first"], match["last"], match["step"]
        if first == "*":
            if last is not None:
                raise InvalidSchedule(f"expected no range after * in the {self.name}, got {text!r}")
            return self._stepped(self.minimum, self.maximum, step)
        if last is None and step is not None:
            raise InvalidSchedule(f"expected a range or * before the step in the {self.name}, got {text!r}")
        return self._stepped(self._number(first), self._number(last or first), step)

    def _stepped(self, first: int, last: int, step: str | None) -> range:
        if first > last:
            raise InvalidSchedule(f"expected an ascending range in the {self.name}, got {first}-{last}")
        if step is not None and not 1 <= int(step) <= self.maximum:
            raise InvalidSchedule(f"expected a step between 1 and {self.maximum} in the {self.name}, got {step}")
        return range(first, last + 1, int(step or 1))

    def _number(self, text: str) -> int:
        if text in self.names:
            return self.names.index(text) + self.minimum
        if not re.fullmatch(r"[0-9]{1,2}", text) or not self.minimum <= int(text) <= self.maximum:
            raise InvalidSchedule(f"expected {self.minimum} to {self.maximum} in the {self.name}, got {text!r}")
        return int(text)


MINUTE, HOUR = Field("minute", 0, 59), Field("hour", 0, 23)
DAY_OF_MONTH, MONTH = Field("day of the month", 1, 31), Field("month", 1, 12, MONTHS)
DAY_OF_WEEK = Field("day of the week", 0, 7, DAYS)
FIELDS = (MINUTE, HOUR, DAY_OF_MONTH, MONTH, DAY_OF_WEEK)


@dataclass(frozen=True)
class Days:
    """Select days by month, and by day of the month or of the week; None for a field that is ``*``."""

    months: frozenset[int]
    of_month: frozenset[int] | None
    of_week: frozenset[int] | None

    def __call__(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        choices = []
        if self.of_month is not None:
            choices.append(day.day in self.of_month)
        if self.of_week is not None:
            choices.append(day.isoweekday() % 7 in self.of_week)
        return any(choices) if choices else True


def parse(expression: str, zone: ZoneInfo) -> Calendar:
    """Return the calendar of an expression, or raise `InvalidSchedule`."""
    texts = expression.split(" ")
    if len(texts) != len(FIELDS):
        raise InvalidSchedule(f"expected five fields, got {len(texts)} in {expression!r}")
    minutes, hours, of_month, months, of_week = (
        field.parse(text) for field, text in zip(FIELDS, texts, strict=True)
    )
    days = Days(
        months,
        None if texts[2] == "*" else of_month,
        # 7 is Sunday, as 0 is.
        None if texts[4] == "*" else frozenset(number % 7 for number in of_week),
    )
    return Calendar(days, tuple(time(hour, minute) for hour in sorted(hours) for minute in sorted(minutes)), zone)
