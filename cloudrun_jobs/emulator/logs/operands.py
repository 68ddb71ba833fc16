"""Compare the values of log entries with the operand of a comparison, after converting it to their type.

https://docs.cloud.google.com/logging/docs/view/logging-query-language#values_conversions
"""

from __future__ import annotations

import operator
import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.descriptor import EnumDescriptor

from cloudrun_jobs.emulator.logs.fields import Enumerated, Instant, Length, Whole, scalars
from cloudrun_jobs.emulator.logs.query import MalformedFilter, Member

NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*(?:e[+-]?\d+)?|infinity|nan)", re.IGNORECASE | re.ASCII)
DURATION = re.compile(r"(-?)(\d{1,12})(?:\.(\d+))?(ns|us|ms|s|m|h)", re.ASCII)
INSTANT = re.compile(r"([^.,]+)(?:[.,](\d{1,9})\d*)?(Z|[+-][\d:]+)?", re.IGNORECASE | re.ASCII)
NANOS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NULL = "NULL_VALUE"
FAILED: Any = object()  # The result of a conversion to another type.
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    ":": operator.eq,
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
REGEX_OPERATORS = ("=~", "!~")
MAX_REGEX_BYTES = 512 * 1024  # Of memory for a compiled expression. The service has a limit too, not documented.
TYPE_NAMES = {bool: "a boolean", float: "a number", Instant: "a timestamp", Length: "a duration"}


class Operand:
    """The right-hand side of a comparison, with its operator."""

    def __init__(self, sign: str, value: Member) -> None:
        self._sign = sign
        self._text = ""
        self._tests: dict[Any, Callable[[Any], bool]]
        if sign in REGEX_OPERATORS:
            self._tests = {str: _pattern_test(sign, value)}
            return
        self._text = value.text
        self._compare = COMPARISONS[sign]
        self._numbers: dict[EnumDescriptor, int | None] = {}
        self._tests = {
            str: self._text_test(),
            float: self._test(number(self._text)),
            int: self._test(number(self._text)),
            bool: self._test(boolean(self._text)),
            type(None): self._test(None if self._text == NULL else FAILED),
            Instant: self._test(instant(self._text)),
            Length: self._test(duration(self._text)),
            Enumerated: self._enumerated,
        }
        if sign == ":":
            self._tests[Whole] = lambda whole: any(map(self.matches, scalars(whole.message)))

    def matches(self, value: Any) -> bool:
        """Return True if the comparison holds; it does not if the operand is not of the value's type."""
        test = self._tests.get(type(value))
        return test is not None and test(value)

    def check(self, value_type: Any, name: str) -> None:
        """Raise an error if the comparison cannot hold for any value of this type."""
        if value_type in (str, object):
            return
        if self._sign in REGEX_OPERATORS:
            raise MalformedFilter(f"'{self._sign}' applies only to text, which '{name}' is not")
        if value_type is None:
            if self._sign != ":":
                raise MalformedFilter(f"'{self._sign}' does not apply to '{name}', which has fields of its own")
        elif isinstance(value_type, EnumDescriptor):
            if self._number(value_type) is None:
                raise MalformedFilter(f"expected a value of {value_type.name} for '{name}', got '{self._text}'")
        elif self._tests[value_type] is never:
            raise MalformedFilter(f"expected {TYPE_NAMES[value_type]} for '{name}', got '{self._text}'")

    def test_for(self, value_type: Any) -> Callable[[Any], bool]:
        """Return the function that compares a value of this type."""
        return self._tests.get(value_type, self.matches)

    def _test(self, converted: Any) -> Callable[[Any], bool]:
        if converted is FAILED:
            return never
        compare = self._compare
        return lambda value: compare(value, converted)

    def _text_test(self) -> Callable[[Any], bool]:
        folded, compare = fold(self._text), self._compare
        if self._sign == ":":
            return lambda value: folded in fold(value)
        return lambda value: compare(fold(value), folded)

    def _enumerated(self, value: Enumerated) -> bool:
        number_of_operand = self._number(value.type)
        return number_of_operand is not None and self._compare(value.number, number_of_operand)

    def _number(self, enumeration: EnumDescriptor) -> int | None:
        if enumeration not in self._numbers:
            named = enumeration.values_by_name.get(self._text.upper())
            digits = int(self._text) if re.fullmatch(r"\d{1,9}", self._text, re.ASCII) else None
            self._numbers[enumeration] = digits if named is None else named.number
        return self._numbers[enumeration]


def never(_: Any) -> bool:
    return False


def fold(text: str) -> str:
    """Return the text without its letter case, as comparisons see it: NFKC_Casefold."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()


def number(text: str) -> Any:
    if not NUMBER.fullmatch(text):
        return FAILED
    digits = text.lstrip("+-")
    # A double has too few digits for 64 bits.
    return int(text) if digits.isdecimal() and len(digits) < 20 else float(text)


def boolean(text: str) -> Any:
    return {"true": True, "false": False}.get(text.lower(), FAILED)


def instant(text: str) -> Any:
    """Return the instant of a text in RFC 3339 or ISO 8601; a time without a zone is in UTC."""
    parts = INSTANT.fullmatch(text)
    if parts is None:
        return FAILED
    try:
        moment = datetime.fromisoformat(parts[1] + (parts[3] or "").upper())
    except ValueError:
        return FAILED
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return Instant((aware - EPOCH) // timedelta(seconds=1), int((parts[2] or "").ljust(9, "0")))


def duration(text: str) -> Any:
    parts = DURATION.fullmatch(text)
    if parts is None:
        return FAILED
    unit = NANOS[parts[4]]
    fraction = parts[3] or "0"
    nanos = int(parts[2]) * unit + int(fraction) * unit // 10 ** len(fraction)
    return Length(-nanos if parts[1] else nanos)


def pattern(text: str, *, captures: bool) -> Any:
    """Compile a regular expression of RE2, whose time is linear in the length of a text.

    Without captures, it does not also grow with the number of groups.

    Raises:
        MalformedFilter: it is too large, or not an expression of RE2; look-around and back-references are none.
    """
    import re2  # type: ignore[import-untyped]

    options = re2.Options()
    options.log_errors = False
    options.max_mem = MAX_REGEX_BYTES
    options.never_capture = not captures
    try:
        return re2.compile(text, options)
    except re2.error as error:
        reason = error.args[0]
        explained = reason.decode(errors="replace") if isinstance(reason, bytes) else reason
        raise MalformedFilter(f"invalid regular expression '{text}': {explained}") from error


def _pattern_test(sign: str, value: Member) -> Callable[[Any], bool]:
    if not value.is_quoted:
        raise MalformedFilter(f"regular expressions must begin and end with '\"', token '{value.source}'")
    # As it is written: RE2 has escape sequences of its own.
    search = pattern(value.source[1:-1], captures=False).search
    if sign == "=~":
        return lambda found: search(found) is not None
    return lambda found: search(found) is None
