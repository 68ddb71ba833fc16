"""Schedules in the one dialect Cloud Scheduler accepts.

Stricter than cron on purpose: what passes here is accepted there. The grammar, with the source of
each rule, is in docs/schedules.md.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from cloudrun_jobs.cron import english
from cloudrun_jobs.cron.english import MONTH_LENGTHS, is_english
from cloudrun_jobs.exceptions import InvalidSchedule

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class Field(NamedTuple):
    """One of the five fields: its name, its inclusive bounds, and the names of its numbers."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    def number(self, text: str) -> int:
        if text in self.names:
            return self.names.index(text) + self.low
        if text.upper() in self.names:
            raise InvalidSchedule(f"{self.name}: names are upper case.", hint=f"Write {text.upper()!r}.")
        if not re.fullmatch(r"[0-9]{1,2}", text) or not self.low <= int(text) <= self.high:
            raise InvalidSchedule(f"{self.name}: expected {self.low}-{self.high}, got {text!r}.")
        return int(text)

    def values(self, text: str) -> set[int]:
        """Return the numbers of a valid list of items."""
        return {number for item in text.split(",") for number in self._values(item)}

    def _values(self, item: str) -> range:
        span, _, step = item.partition("/")
        first, _, last = span.partition("-")
        low, high = (self.low, self.high) if span == "*" else (self.number(first), self.number(last or first))
        return range(low, high + 1, int(step or 1))


FIELDS = (
    Field("minute", 0, 59),
    Field("hour", 0, 23),
    Field("day of month", 1, 31),
    Field("month", 1, 12, MONTHS),
    Field("day of week", 0, 7, DAYS),
)


def validate(expression: str) -> None:
    """Raise `InvalidSchedule`, naming the field and the fix, unless Cloud Scheduler accepts the expression."""
    if expression in MACROS:
        raise InvalidSchedule("Cloud Scheduler has no macros.", hint=f"Write {MACROS[expression]!r}.")
    if is_english(expression):
        return english.validate(expression)
    parts = expression.split(" ")  # The documentation mentions no other white space.
    if parts != (words := expression.split()) and len(words) == len(FIELDS):
        hint = f"Write {' '.join(words)!r}."
        raise InvalidSchedule(f"Expected 5 fields with one space between two, got {expression!r}.", hint=hint)
    if len(parts) != len(FIELDS):
        names = ", ".join(field.name for field in FIELDS)
        raise InvalidSchedule(f"Expected 5 fields ({names}), got {len(parts)}.")
    for field, part in zip(FIELDS, parts, strict=True):
        for item in part.split(","):
            _validate_item(field, item)
    return _validate_date(parts[2], parts[3], parts[4])


def _validate_item(field: Field, item: str) -> None:
    """Check one item of a field's list: `*`, `a`, `a-b`, and the steps `*/n` and `a-b/n`."""
    span, slash, step = item.partition("/")
    if slash:
        _validate_step(field, span, step)
    if span == "*":
        return
    first, dash, last = span.partition("-")
    low = field.number(first)
    if dash and field.number(last) < low:
        wrapped = f"{first}-{field.high},{field.low}-{last}"
        raise InvalidSchedule(f"{field.name}: the range {span!r} wraps around.", hint=f"Write {wrapped!r}.")


def _validate_step(field: Field, span: str, step: str) -> None:
    if not re.fullmatch(r"[0-9]+", step) or not 1 <= int(step) <= field.high:
        hint = _step_fix(field, span, int(step)) if re.fullmatch(r"[0-9]+", step) and int(step) else ""
        raise InvalidSchedule(f"{field.name}: expected a step of 1-{field.high}, got {step!r}.", hint=hint)
    if span != "*" and "-" not in span:
        hint = f"Write '{span}-{field.high}/{step}'."
        raise InvalidSchedule(f"{field.name}: a step follows '*' or a range, not {span!r}.", hint=hint)


def _step_fix(field: Field, span: str, step: int) -> str:
    """Name the one value that such a step leaves, and the interval that may be meant."""
    first = str(field.low) if span == "*" else span.partition("-")[0]
    is_interval = field.name in {"minute", "hour"} and field.high + 1 < step < 100_000
    other = f", or the schedule 'every {step} {field.name}s'" if is_interval else ""
    return f"Write {first!r}{other}."


def _validate_date(of_month: str, month: str, of_week: str) -> None:
    """Reject the 31st of February: Cloud Scheduler accepts it and never runs it."""
    first = min(FIELDS[2].values(of_month))
    if of_week == "*" and not any(first <= MONTH_LENGTHS[number - 1] for number in FIELDS[3].values(month)):
        raise InvalidSchedule(f"It never runs: no such month has a day {first}.")


def is_hourly(expression: str) -> bool:
    """Return True if a valid expression of five fields is due in every hour of a day."""
    return len(FIELDS[1].values(expression.split(" ")[1])) == 24


def names_both_days(expression: str) -> bool:
    """Return True if a valid expression names days of the month and of the week: it is due on either."""
    parts = expression.split(" ")
    return not is_english(expression) and "*" not in (parts[2], parts[4])
