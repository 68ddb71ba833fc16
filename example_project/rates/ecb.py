"""Read the European Central Bank's history of euro reference rates: one CSV file in a zip.

One line per day, one column per currency, "N/A" for a missing rate, and a comma at the end of each line:

    Date,USD,JPY,BGN,
    2026-10-30,1.1172,175.68,N/A,

Any deviation is an error, because a wrong rate costs more than a missing one.
"""

from __future__ import annotations

import csv
import re
import zlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from io import StringIO
from lzma import LZMAError
from pathlib import Path
from reprlib import repr as shortened
from zipfile import BadZipFile, ZipFile

MISSING = "N/A"
INTEGER_DIGITS, DECIMAL_PLACES = 9, 6

DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
CURRENCY = re.compile(r"[A-Z]{3}")
NUMBER = re.compile(rf"[0-9]{{1,{INTEGER_DIGITS}}}(\.[0-9]{{1,{DECIMAL_PLACES}}})?")

# Errors of zipfile for archives that are damaged, encrypted, or compressed by an unknown method.
UNREADABLE = (BadZipFile, EOFError, LZMAError, RuntimeError, ValueError, zlib.error)

Rates = dict[str, Decimal]  # Units of each currency per euro.


class BadSource(Exception):
    """A source deviates from the bank's format. The message says where, what was expected and what was found."""


@dataclass(frozen=True, slots=True)
class History:
    """Every rate of a source."""

    currencies: tuple[str, ...]
    days: dict[date, Rates]

    def select(self, *, since: date, currencies: Collection[str]) -> dict[date, Rates]:
        """Return the rates of these currencies from that day on."""
        return {
            day: {currency: rate for currency, rate in rates.items() if currency in currencies}
            for day, rates in self.days.items()
            if day >= since
        }


def read(path: Path) -> History:
    """Return the history in the zip at `path`, or raise `BadSource`."""
    name, content = _extract(path)
    return parse(_decode(content, name), name)


def parse(text: str, name: str) -> History:
    """Return the history in the text of a CSV, or raise `BadSource` with this name and the line."""
    # The bank writes no quotes. Without quotes, one record is one line, and line numbers are correct.
    reader = csv.reader(StringIO(text, newline=""), quoting=csv.QUOTE_NONE, strict=True)
    try:
        currencies = _parse_header(next(reader, []))
        return History(currencies, _parse_days(reader, currencies))
    except (BadSource, csv.Error) as error:
        raise BadSource(f"{name}, line {max(reader.line_num, 1)}: {error}") from None


def parse_day(text: str) -> date:
    """Return the date written as 2026-01-31, or raise `BadSource`."""
    try:
        # date.fromisoformat() alone would also accept week numbers.
        if DAY.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise BadSource(f"expected a date such as 2026-01-31, got {shortened(text)}.")


def _extract(path: Path) -> tuple[str, bytes]:
    try:
        with ZipFile(path) as archive:
            member = _only_csv(archive.namelist())
            return f"{path}: {member}", archive.read(member)
    except BadSource as error:
        raise BadSource(f"{path}: {error}") from None
    except OSError as error:
        raise BadSource(f"{path}: expected a readable zip file, got: {error.strerror or error}.") from error
    except UNREADABLE as error:
        raise BadSource(
            f"{path}: expected a whole zip file, got: {str(error) or type(error).__name__}."
        ) from error


def _only_csv(members: Sequence[str]) -> str:
    found = [member for member in members if member.endswith(".csv")]
    if len(found) != 1:
        raise BadSource(f"expected one .csv in the zip, got {shortened(list(members))}.")
    return found[0]


def _decode(content: bytes, name: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        got = content[error.start : error.end]
        raise BadSource(f"{name}, line {line}: expected UTF-8, got {got!r}.") from None


def _parse_header(row: Sequence[str]) -> tuple[str, ...]:
    currencies = tuple(row[1:-1])
    if [*row[:1], *row[-1:]] != ["Date", ""] or not all(map(CURRENCY.fullmatch, currencies)) or not currencies:
        raise BadSource(f"expected the header 'Date,USD,…,', got {shortened(','.join(row))}.")
    if twice := [currency for currency in currencies if currencies.count(currency) > 1]:
        raise BadSource(f"expected each currency once, got {twice[0]} {len(twice)} times.")
    return currencies


def _parse_days(rows: Iterable[Sequence[str]], currencies: Sequence[str]) -> dict[date, Rates]:
    days: dict[date, Rates] = {}
    for row in rows:
        day, rates = _parse_row(row, currencies)
        if day in days:
            raise BadSource(f"expected each date once, got {day} again.")
        days[day] = rates
    if not days:
        raise BadSource("expected lines of rates after the header, got none.")
    return days


def _parse_row(row: Sequence[str], currencies: Sequence[str]) -> tuple[date, Rates]:
    # The date, the rates, and an empty column after the last comma: without it the line is truncated.
    columns = 1 + len(currencies) + 1
    if len(row) != columns or row[-1]:
        got = f"{len(row)} columns" if len(row) != columns else f"{shortened(row[-1])} in the last"
        raise BadSource(f"expected {columns} columns, the last one empty, got {got}.")
    rates = {
        currency: _parse_rate(text, currency)
        for currency, text in zip(currencies, row[1:-1], strict=True)
        if text != MISSING
    }
    return parse_day(row[0]), rates


def _parse_rate(text: str, currency: str) -> Decimal:
    if NUMBER.fullmatch(text) and (rate := Decimal(text)):
        return rate
    raise BadSource(
        f"{currency}: expected {MISSING} or a number above 0 with at most {INTEGER_DIGITS} digits before"
        f" and {DECIMAL_PLACES} after the point, got {shortened(text)}."
    )
