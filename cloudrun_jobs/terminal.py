"""Progress bars, tables, times and escaped text for a terminal or a log."""

from __future__ import annotations

import os
import shutil
import time
import unicodedata
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any, NamedTuple

from django.core.management.base import OutputWrapper
from django.utils import timezone

BAR_WIDTH = 24  # Columns.
DRAW_INTERVAL = 0.1  # Seconds.
GAP = 2  # Columns between two cells.
ERASE = "\r\x1b[2K"
UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # Controls, bidirectional overrides, line breaks.


class ProgressBar:
    """A bar in the last line of a terminal; nothing if `visible` is false or the stream is not a terminal."""

    def __init__(self, stream: OutputWrapper, *, visible: bool = True) -> None:
        self._stream = stream
        self._visible = visible and stream.isatty() and os.environ.get("TERM") != "dumb"
        self._drawn_at = -DRAW_INTERVAL

    def draw(self, done: int, total: int | None, text: str) -> None:
        """Show the bar and the text, unless they were drawn within the last 0.1 seconds."""
        now = time.monotonic()
        if self._visible and now - self._drawn_at >= DRAW_INTERVAL:
            self._drawn_at = now
            if total is not None:
                part = done / total if total else 1.0
                text = f"[{'#' * int(BAR_WIDTH * part):-<{BAR_WIDTH}}] {part:4.0%}  {text}"
            self._write(ERASE + fit(text, shutil.get_terminal_size().columns - 1))

    def erase(self) -> None:
        """Clear the line, for other output or at the end."""
        if self._drawn_at >= 0:
            self._drawn_at = -DRAW_INTERVAL
            self._write(ERASE)

    def _write(self, text: str) -> None:
        self._stream.write(text, str, ending="")  # Without the red of errors.
        self._stream.flush()


class AboveBar:
    """A stream whose output erases the bar first, which is drawn again below it."""

    def __init__(self, stream: Any, bar: ProgressBar) -> None:
        self.stream, self._bar = stream, bar

    def write(self, text: str) -> Any:
        self._bar.erase()
        return self.stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def fit(text: str, columns: int) -> str:
    """Return as much of the text as fits on one line of that many columns; Japanese characters take two."""
    line = "".join(character if character.isprintable() else " " for character in text)
    ends = accumulate(map(_columns_of, line))
    return "".join(character for character, end in zip(line, ends, strict=True) if end <= columns)


def columns_of(text: str) -> int:
    """Return the number of columns that the text takes on a terminal."""
    return len(text) if text.isascii() else sum(map(_columns_of, text))


def _columns_of(character: str) -> int:
    # Accents, and the vowels and final consonants of decomposed Korean, are written over the letter before them.
    if unicodedata.combining(character) or "\u1160" <= character <= "\u11ff":
        return 0
    return 1 + (unicodedata.east_asian_width(character) in "WF")


def is_unsafe(character: str) -> bool:
    """Return True for a character that can move the cursor, reorder text or begin a line."""
    return unicodedata.category(character) in UNSAFE_CATEGORIES


def width_of(stream: OutputWrapper) -> int | None:
    """Return the number of columns of a terminal; None for a stream that is no terminal."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def escape(text: str, *, keep: str = "") -> str:
    r"""Return the text with unsafe characters as escapes such as \x1b, except those in `keep`.

    Text from users, jobs and services could otherwise forge a row or a log entry.
    """
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if character not in keep and is_unsafe(character)
        else character
        for character in text
    )


class Shrink(NamedTuple):
    """A column of a table that may become narrower on a terminal."""

    heading: str
    minimum: int  # columns
    mark: str = "…"  # The end of a cell that was cut.


def table(*rows: Sequence[str], columns: int | None = None, shrink: Sequence[Shrink] = ()) -> str:
    """Return the rows, escaped, with each column as wide as its widest cell.

    If the first row, the headings, and the others take more than `columns`, the columns in `shrink` are cut, in
    this order.
    """
    cells = [[escape(cell) for cell in row] for row in rows]
    if columns is not None:
        for each in shrink:
            _cut(cells, cells[0].index(each.heading), each, columns)
    widths = [*_widths(cells)[:-1], 0]
    return "\n".join("  ".join(map(_padded, row, widths)).rstrip() for row in cells)


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(columns_of, column)) for column in zip(*rows, strict=True)]


def _cut(rows: Sequence[list[str]], index: int, column: Shrink, columns: int) -> None:
    """Cut the cells of one column by as much as the rows are too wide."""
    widths = _widths(rows)
    excess = sum(widths) + GAP * (len(widths) - 1) - columns
    width = max(widths[index] - excess, column.minimum)
    for row in rows if excess > 0 else ():
        if columns_of(row[index]) > width:
            row[index] = fit(row[index], width - len(column.mark)) + column.mark


def _padded(text: str, width: int) -> str:
    return text + " " * (width - columns_of(text))


def format_time(when: datetime | None) -> str:
    """Return a time in the project's time zone, or "-"."""
    if when is None:
        return "-"
    return f"{timezone.localtime(when):%F %T %Z}" if timezone.is_aware(when) else f"{when:%F %T}"


def format_minute(when: datetime | None) -> str:
    """Return a time in the project's time zone to the minute, without the year, or "-"."""
    if when is None:
        return "-"
    return f"{timezone.localtime(when) if timezone.is_aware(when) else when:%m-%d %H:%M}"


def format_duration(start: datetime | None, end: datetime | None) -> str:
    """Return the time between two times, in whole seconds; "-" if one of them is None."""
    if start is None or end is None:
        return "-"
    return str(timedelta(seconds=round((end - start).total_seconds())))
