"""Schedules in the one dialect Cloud Scheduler accepts.

Stricter than cron on purpose: what passes here is accepted there. The dialect is described at
https://cloud.google.com/scheduler/docs/configuring/cron-job-schedules
"""

from __future__ import annotations

import re
from typing import NamedTuple

from cloudrun_jobs.exceptions import InvalidSchedule

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
MONTH_LENGTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
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
        return _validate_english(expression)
    parts = expression.split(" ")  # The documentation mentions no other white space.
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
        raise InvalidSchedule(f"{field.name}: expected a step of 1-{field.high}, got {step!r}.")
    if span != "*" and "-" not in span:
        hint = f"Write '{span}-{field.high}/{step}'."
        raise InvalidSchedule(f"{field.name}: a step follows '*' or a range, not {span!r}.", hint=hint)


def _validate_date(of_month: str, month: str, of_week: str) -> None:
    """Reject the 31st of February: Cloud Scheduler accepts it and never runs it."""
    first = min(FIELDS[2].values(of_month))
    if of_week == "*" and not any(first <= MONTH_LENGTHS[number - 1] for number in FIELDS[3].values(month)):
        raise InvalidSchedule(f"It never runs: no such month has a day {first}.")


# The English-like forms, which are App Engine's: "every 5 minutes", "every day 09:00",
# "2nd,3rd tue,wed of feb,aug 13:50", "1,3 of jan 12:34", "1st friday of quarter 9:00".
_TIME = r"(?:[01]?\d|2[0-3]):[0-5]\d"
_DAY = r"(?:sun(?:day)?|mon(?:day)?|tue(?:sday)?|wed(?:nesday)?|thu(?:rsday)?|fri(?:day)?|sat(?:urday)?)"
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
    r"|sep(?:tember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_ORDINAL = r"(?:first|second|third|fourth|fifth|[1-5](?:st|nd|rd|th))"
_DATE = r"(?:[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?"


def _list_of(item: str) -> str:
    return f"{item}(?:,{item})*"


_OF = rf"(?: of (?:month|quarter|{_list_of(_MONTH)}))"
_DAYS = f"(?:day|{_list_of(_DAY)})"
_INTERVAL = (
    rf"every (?:minute|hour|[1-9]\d{{0,4}} (?:minutes?|mins?|hours?))"
    rf"(?: synchronized| from {_TIME} to {_TIME})?(?: on {_list_of(_DAY)})?"
)
# Compiled on first use: most processes that import this module validate no such schedule.
_ENGLISH = (
    rf"{_INTERVAL}|every {_DAYS}{_OF}? {_TIME}|{_list_of(_ORDINAL)} {_DAYS}{_OF} {_TIME}"
    rf"|{_list_of(_DATE)}{_OF} {_TIME}"
)


def _validate_english(expression: str) -> None:
    if not re.fullmatch(_ENGLISH, expression):
        raise InvalidSchedule(
            "Not one of Cloud Scheduler's English-like schedules.",
            hint="Examples: 'every 5 minutes', 'every mon,wed 09:00', '1st monday of month 12:00'.",
        )


def is_english(expression: str) -> bool:
    """Return True for a valid expression in an English-like form, whose times are not computed here."""
    return "every" in expression or ":" in expression


def is_hourly(expression: str) -> bool:
    """Return True if a valid expression of five fields is due in every hour of a day."""
    return len(FIELDS[1].values(expression.split(" ")[1])) == 24


def names_both_days(expression: str) -> bool:
    """Return True if a valid expression names days of the month and of the week: it is due on either."""
    parts = expression.split(" ")
    return not is_english(expression) and "*" not in (parts[2], parts[4])
