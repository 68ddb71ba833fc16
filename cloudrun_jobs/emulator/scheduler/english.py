"""Parse the English-like schedules that Cloud Scheduler inherits from App Engine: ``every monday 09:00``.

https://cloud.google.com/appengine/docs/standard/scheduling-jobs-with-cron-yaml
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, time, timedelta
from typing import TYPE_CHECKING

from cloudrun_jobs.emulator.scheduler.calendar import Calendar, Interval, Schedule
from cloudrun_jobs.emulator.scheduler.cron import InvalidSchedule

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
          "november", "december")  # fmt: skip
DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
ORDINALS = ("first", "second", "third", "fourth", "fifth")
EVERY_MONTH = frozenset(range(1, 13))
EVERY_DAY = frozenset(range(7))
# The first month of each quarter.
QUARTER_MONTHS = frozenset({1, 4, 7, 10})

INTERVAL = re.compile(r"every (?:(\d+) )?(minutes?|mins?|hours?)(?: on (\S+))?")
DAILY = re.compile(r"every (\S+) (\d{1,2}:\d{2})")
MONTHLY = re.compile(r"(?:every )?(\S+) (?:(\S+) )?of (\S+) (\d{1,2}:\d{2})")


@dataclass(frozen=True)
class NthDays:
    """Ordinal weekdays of some months: the first Sunday, the second and third Tuesday …"""

    months: frozenset[int]
    weekdays: frozenset[int]
    ordinals: frozenset[int]

    def __call__(self, day: date) -> bool:
        nth = (day.day - 1) // 7 + 1
        return day.month in self.months and day.isoweekday() % 7 in self.weekdays and nth in self.ordinals


@dataclass(frozen=True)
class MonthDays:
    """Days of some months."""

    months: frozenset[int]
    days: frozenset[int]

    def __call__(self, day: date) -> bool:
        return day.month in self.months and day.day in self.days


def parse(text: str, zone: ZoneInfo) -> Schedule:
    """Return the schedule of an English-like expression, or raise `InvalidSchedule`."""
    words = re.sub(r",\s+", ",", " ".join(text.lower().split()))
    if match := INTERVAL.fullmatch(words):
        return _interval(match, zone)
    if match := DAILY.fullmatch(words):
        weekdays = EVERY_DAY if match[1] == "day" else _weekdays(match[1])
        return Calendar(_any_week(weekdays), (_time(match[2]),), zone)
    if match := MONTHLY.fullmatch(words):
        return _monthly(match, zone)
    raise InvalidSchedule(f"expected a schedule such as 'every monday 09:00', got {text!r}")


def _interval(match: re.Match[str], zone: ZoneInfo) -> Schedule:
    number = int(match[1] or 1)
    minutes = number * (60 if match[2].startswith("hour") else 1)
    if minutes < 1:
        raise InvalidSchedule("expected an interval of a minute or more, got 0")
    if match[3] is None:
        return Interval(timedelta(minutes=minutes))
    # On selected days, an interval is counted from midnight.
    times = tuple(time(*divmod(minute, 60)) for minute in range(0, 24 * 60, minutes))
    return Calendar(_any_week(_weekdays(match[3])), times, zone)


def _monthly(match: re.Match[str], zone: ZoneInfo) -> Schedule:
    months, times = _months(match[3]), (_time(match[4]),)
    if match[2] is None:
        days = frozenset(_number(word, 1, 31) for word in match[1].split(","))
        return Calendar(MonthDays(months, days), times, zone)
    weekdays = EVERY_DAY if match[2] == "day" else _weekdays(match[2])
    if match[1] == "every":
        return Calendar(NthDays(months, weekdays, frozenset(range(1, 6))), times, zone)
    ordinals = frozenset(_ordinal(word) for word in match[1].split(","))
    return Calendar(NthDays(months, weekdays, ordinals), times, zone)


def _any_week(weekdays: frozenset[int]) -> NthDays:
    return NthDays(EVERY_MONTH, weekdays, frozenset(range(1, 6)))


def _months(text: str) -> frozenset[int]:
    if text == "month":
        return EVERY_MONTH
    if text == "quarter":
        return QUARTER_MONTHS
    return frozenset(_index(word, MONTHS) + 1 for word in text.split(","))


def _weekdays(text: str) -> frozenset[int]:
    return frozenset(_index(word, DAYS) for word in text.split(","))


def _index(word: str, names: tuple[str, ...]) -> int:
    for index, name in enumerate(names):
        if word in (name, name[:3]):
            return index
    raise InvalidSchedule(f"expected one of {', '.join(names)}, got {word!r}")


def _ordinal(word: str) -> int:
    if word in ORDINALS:
        return ORDINALS.index(word) + 1
    return _number(re.sub(r"(st|nd|rd|th)$", "", word), 1, 5)


def _number(text: str, minimum: int, maximum: int) -> int:
    if not text.isdecimal() or not minimum <= int(text) <= maximum:
        raise InvalidSchedule(f"expected {minimum} to {maximum}, got {text!r}")
    return int(text)


def _time(text: str) -> time:
    hour, minute = text.split(":")
    return time(_number(hour, 0, 23), _number(minute, 0, 59))
