"""A bar for work that takes a while, where somebody watches."""

from __future__ import annotations

from django.core.management.base import OutputWrapper

FEW = 10  # So many need no bar.
WIDTH = 40


class Progress:
    """Shows on a terminal how far the work is; elsewhere, and for little work, nothing."""

    def __init__(self, stream: OutputWrapper, total: int) -> None:
        self._stream, self._total, self._done = stream, total, 0
        self._shown = total > FEW and stream.isatty()

    def step(self) -> None:
        self._done += 1
        if self._shown:
            full = self._done * WIDTH // self._total
            self._stream.write(f"\r[{'#' * full:.<{WIDTH}}] {self._done}/{self._total}", ending="")
            self._stream.flush()

    def clear(self) -> None:
        """Wipe the bar, so that a line can be written in its place."""
        if self._shown:
            self._stream.write("\r\x1b[2K", ending="")
