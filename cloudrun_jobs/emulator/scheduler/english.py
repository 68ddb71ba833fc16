"""Parse the English-like schedules that Cloud Scheduler inherits from App Engine: ``every monday 09:00``.

docs/schedules.md has the grammar, and the source of each rule.
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
ORDINALS = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh",
    "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth", "eighteenth", "nineteenth",
    "twentieth", "twentyfirst", "twentysecond", "twentythird", "twentyfourth", "twentyfifth", "twentysixth",
    "twentyseventh", "twentyeighth", "twentyninth", "thirtieth", "thirtyfirst",
)  # fmt: skip
MAX_NTH_WEEKDAY = 5  # Of a month.
EVERY_MONTH = frozenset(range(1, 13))
EVERY_DAY = frozenset(range(7))
MONTHS_OF_QUARTER = 3
# The days of each month, by its number, in leap years.
MONTH_LENGTHS = dict(zip(range(1, 13), (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31), strict=True))
MINUTES_OF_DAY = 24 * 60

TIME = r"(?:[01]?[0-9]|2[0-3]):[0-5][0-9]"
EVERY_MINUTE = re.compile("every minute")
INTERVAL = re.compile(
    rf"every (?P<number>[1-9][0-9]{{0,4}}) (?P<unit>minutes|mins|hours)"
    rf"(?P<synchronized> synchronized)?(?: from (?P<first>{TIME}) to (?P<last>{TIME}))?(?: on (?P<days>[a-z,]+))?"
)
WEEKDAYS = re.compile(rf"(?P<nth>[a-z0-9,]+) (?P<days>[a-z,]+)(?: of (?P<months>[a-z0-9, ]+))? (?P<time>{TIME})")
DATES = re.compile(rf"(?P<dates>[a-z0-9,]+) of (?P<months>[a-z0-9, ]+) (?P<time>{TIME})")
# The documentation requires a divisor of 24, for minutes as well as for hours.
SYNCHRONIZED_NUMBERS = (1, 2, 3, 4, 6, 8, 12, 24)


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
    if EVERY_MINUTE.fullmatch(text):
        return Interval(timedelta(minutes=1))
    if match := INTERVAL.fullmatch(text):
        return _interval(match, zone)
    # "1 of jan 9:00" also has the form of weekdays without "of": its second word would be "of".
    if match := DATES.fullmatch(text):
        return _dates(match, zone)
    if match := WEEKDAYS.fullmatch(text):
        return _weekdays_of_months(match, zone)
    raise InvalidSchedule(f"expected a schedule such as 'every monday 09:00', got {text!r}")


def _interval(match: re.Match[str], zone: ZoneInfo) -> Schedule:
    number = int(match["number"])
    minutes = number * (60 if match["unit"] == "hours" else 1)
    if match["synchronized"] and (match["first"] or number not in SYNCHRONIZED_NUMBERS):
        raise InvalidSchedule(f"expected one of {SYNCHRONIZED_NUMBERS} without a time range, got {match[0]!r}")
    if not (match["synchronized"] or match["first"] or match["days"]):
        return Interval(timedelta(minutes=minutes))
    # Other intervals restart each day: at the start of the range, or at midnight.
    first, last = _minute(match["first"] or "0:00"), _minute(match["last"] or "23:59")
    length = (last - first) % MINUTES_OF_DAY  # The range may include midnight.
    due = sorted((first + minute) % MINUTES_OF_DAY for minute in range(0, length + 1, minutes))
    times = tuple(time(*divmod(minute, 60)) for minute in due)
    return Calendar(_any_week(_weekdays(match["days"] or "day")), times, zone)


def _dates(match: re.Match[str], zone: ZoneInfo) -> Schedule:
    months = _months(match["months"])
    days = frozenset(_date(word) for word in match["dates"].split(","))
    if min(days) > max(MONTH_LENGTHS[month] for month in months):
        raise InvalidSchedule(f"expected a day that one of the months has, got {match[0]!r}")
    return Calendar(MonthDays(months, days), (_time(match["time"]),), zone)


def _weekdays_of_months(match: re.Match[str], zone: ZoneInfo) -> Schedule:
    months = _months(match["months"] or "month")
    weekdays = _weekdays(match["days"])
    if match["nth"] == "every":
        nth = frozenset(range(1, MAX_NTH_WEEKDAY + 1))
    else:
        nth = frozenset(_ordinal(word, MAX_NTH_WEEKDAY) for word in match["nth"].split(","))
    return Calendar(NthDays(months, weekdays, nth), (_time(match["time"]),), zone)


def _any_week(weekdays: frozenset[int]) -> NthDays:
    return NthDays(EVERY_MONTH, weekdays, frozenset(range(1, MAX_NTH_WEEKDAY + 1)))


def _months(text: str) -> frozenset[int]:
    if text == "month":
        return EVERY_MONTH
    if text == "quarter":
        return _months_of_quarter({1})
    if text.endswith(" month of quarter"):
        ordinals = text.removesuffix(" month of quarter").split(",")
        return _months_of_quarter({_ordinal(word, MONTHS_OF_QUARTER) for word in ordinals})
    return frozenset(_index(word, MONTHS) + 1 for word in text.split(","))


def _months_of_quarter(ordinals: set[int]) -> frozenset[int]:
    return frozenset(month for month in EVERY_MONTH if (month - 1) % MONTHS_OF_QUARTER + 1 in ordinals)


def _weekdays(text: str) -> frozenset[int]:
    return EVERY_DAY if text == "day" else frozenset(_index(word, DAYS) for word in text.split(","))


def _index(word: str, names: tuple[str, ...]) -> int:
    for index, name in enumerate(names):
        if word in (name, name[:3]):
            return index
    raise InvalidSchedule(f"expected one of {', '.join(names)}, got {word!r}")


def _date(word: str) -> int:
    """Return a day of the month from ``3``, ``03``, ``3rd`` or ``third``."""
    if re.fullmatch(r"[0-9]{1,2}", word) and 1 <= int(word) <= len(ORDINALS):
        return int(word)
    return _ordinal(word, len(ORDINALS))


def _ordinal(word: str, maximum: int) -> int:
    for number in range(1, maximum + 1):
        if word in (ORDINALS[number - 1], f"{number}{_suffix(number)}"):
            return number
    raise InvalidSchedule(
        f"expected first to {ORDINALS[maximum - 1]}, or 1st to {maximum}{_suffix(maximum)}, got {word!r}"
    )


def _suffix(number: int) -> str:
    return {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number not in (11, 12, 13) else "th"


def _time(text: str) -> time:
    return time(*divmod(_minute(text), 60))


def _minute(text: str) -> int:
    """Return the minute of the day of a time of day."""
    hour, minute = text.split(":")
    return int(hour) * 60 + int(minute)
