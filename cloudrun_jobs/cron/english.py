"""The English-like schedules of Cloud Scheduler: "every 5 minutes", "1st monday of quarter 9:00".

The grammar, with the source of each rule, is in docs/schedules.md.
"""

from __future__ import annotations

import re
from functools import cache

from cloudrun_jobs.exceptions import InvalidSchedule

MONTH_LENGTHS: tuple[int, ...] = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
ORDINALS = (
    *("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh"),
    *("twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth", "eighteenth", "nineteenth"),
    "twentieth",
)


def is_english(expression: str) -> bool:
    """Return True for a valid expression in an English-like form, whose times are not computed here."""
    return "every" in expression.lower() or ":" in expression


def validate(expression: str) -> None:
    """Raise `InvalidSchedule`, with the fix if there is one, unless Cloud Scheduler accepts the expression."""
    if not _matches(expression):
        fixed = _fixed(expression)
        hint = "Examples: 'every 5 minutes', 'every mon,wed 09:00', '1st monday of month 12:00'."
        if fixed != expression and _matches(fixed):
            hint = f"Write {fixed!r}."
        raise InvalidSchedule("Not one of Cloud Scheduler's English-like schedules.", hint=hint)
    dates, _, rest = expression.partition(" of ")
    if " " not in dates:
        _validate_dates(dates, rest.rpartition(" ")[0])


def _validate_dates(dates: str, months: str) -> None:
    known, lengths = _dates(), MONTH_LENGTHS
    if months.endswith("quarter"):
        ordinals = months.removesuffix("quarter").removesuffix(" month of ") or "1st"
        lengths = tuple(
            MONTH_LENGTHS[known[ordinal] - 1 + 3 * n] for ordinal in ordinals.split(",") for n in range(4)
        )
    elif months != "month":
        numbers = {name[:3]: number for number, name in enumerate(MONTHS)}
        lengths = tuple(MONTH_LENGTHS[numbers[name[:3]]] for name in months.split(","))
    if (first := min(known[date] for date in dates.split(","))) > max(lengths):
        raise InvalidSchedule(f"It never runs: no such month has a day {first}.")


def _matches(expression: str) -> bool:
    return re.fullmatch(_pattern(), expression) is not None


def _fixed(expression: str) -> str:
    """Return what a doubtful expression probably means, in the documented form."""
    text = re.sub(r" *, *", ",", " ".join(expression.lower().split()))
    text = re.sub(r"^every (?=(minute|hour) *( |$))", "every 1 ", text)
    text = re.sub(r"^every 0*(\d+ (?:minute|min|hour))s?\b", r"every \1s", text)
    text = (
        re.sub(r"^(every \d+ \w+) synchronized", r"\1 from 00:00 to 23:59", text) if not _matches(text) else text
    )
    return re.sub(r"^every 1 min(ute)?s$", "every minute", text)


@cache
def _dates() -> dict[str, int]:
    """Return the day of a month for each of its forms: 1, 01, 1st, first."""
    words = (*ORDINALS, *(f"twenty{word}" for word in ORDINALS[:9]), "thirtieth", "thirtyfirst")
    found = dict[str, int]()
    for number, word in enumerate(words, start=1):
        ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10 if number not in {11, 12, 13} else 0, "th")
        found |= dict.fromkeys((word, str(number), f"{number:02}", f"{number}{ending}"), number)
    return found


@cache
def _pattern() -> str:
    """Return the grammar as a regular expression."""

    def any_of(*words: str) -> str:
        return f"(?:{'|'.join(words)})"

    def list_of(*words: str) -> str:
        return f"{any_of(*words)}(?:,{any_of(*words)})*"

    def names(full: tuple[str, ...]) -> list[str]:
        return [f"{name[:3]}(?:{name[3:]})?" for name in full]

    def ordinals(last: int) -> str:
        return list_of(*(form for form, number in _dates().items() if number <= last and not form.isdigit()))

    time = r"(?:[01]?[0-9]|2[0-3]):[0-5][0-9]"
    weekdays = any_of("day", list_of(*names(DAYS)))
    months = any_of("month", "quarter", f"{ordinals(3)} month of quarter", list_of(*names(MONTHS)))
    units = "(?:minutes|mins|hours)"
    plain = f"[1-9][0-9]{{0,4}} {units}(?: from {time} to {time})?"
    synchronized = f"(?:1|2|3|4|6|8|12|24) {units} synchronized"
    return any_of(
        "every minute",
        f"every {any_of(plain, synchronized)}(?: on {weekdays})?",
        f"{any_of('every', ordinals(5))} {weekdays}(?: of {months})? {time}",
        f"{list_of(*_dates())} of {months} {time}",
    )
