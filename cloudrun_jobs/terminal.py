"""A bar on a terminal."""

from __future__ import annotations

import shutil
import time
import unicodedata
from itertools import accumulate

from django.core.management.base import OutputWrapper

from cloudrun_jobs.models import Progress

WIDTH = 24
PAUSE = 0.1  # Seconds between two drawings.
ERASE = "\r\x1b[2K"


class ProgressBar:
    """Shows how far a job is, in the last line of a terminal."""

    def __init__(self, terminal: OutputWrapper) -> None:
        self._terminal = terminal
        self._drawn_at = -PAUSE

    def draw(self, progress: Progress) -> None:
        """Show it, unless something else was shown a moment ago."""
        now = time.monotonic()
        if now - self._drawn_at >= PAUSE:
            self._drawn_at = now
            self._write(ERASE + fit(_words(progress), shutil.get_terminal_size().columns - 1))

    def erase(self) -> None:
        """Give the line back."""
        self._write(ERASE)

    def _write(self, text: str) -> None:
        self._terminal.write(text, str, ending="")  # Not in the red of errors.
        self._terminal.flush()


def _words(progress: Progress) -> str:
    if progress.total is None:
        return str(progress)
    part = progress.done / progress.total if progress.total else 1.0
    filled = "#" * int(WIDTH * part)
    return f"[{filled:-<{WIDTH}}] {part:4.0%}  {progress}"


def fit(text: str, columns: int) -> str:
    """Return as much of a text as fits into so many columns, in one line: Japanese letters take two."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    ends = accumulate(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in line)
    return "".join(letter for letter, end in zip(line, ends, strict=True) if end <= columns)
