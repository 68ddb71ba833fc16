"""What a process writes, cut into lines, with an end to how much of it is kept."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 1 << 18
LONGEST_LINE = 256 * 1024  # Cloud Logging refuses entries above 256 KiB.
KEPT_BYTES = (
    8 * 1024 * 1024
)  # Per stream of an attempt: a task may write without end, the emulator may not grow so.
KEPT_LINES = 20_000


class Stream:
    """One of the output streams of a process; `read` is called when there is something to read."""

    def __init__(self, fd: int, write: Callable[[str], None]) -> None:
        self.fd = fd
        self.dropped = 0
        self._write = write
        self._rest = b""
        self._bytes = 0
        self._lines = 0

    def read(self) -> bool:
        """Take what there is; false at the end of the stream."""
        chunk = os.read(self.fd, CHUNK)
        if self._bytes >= KEPT_BYTES or self._lines >= KEPT_LINES:
            self.dropped += chunk.count(b"\n")
            return bool(chunk)
        self._bytes += len(chunk)
        self._split(chunk)
        return bool(chunk)

    def close(self) -> None:
        os.close(self.fd)
        if self._rest:
            self._emit(self._rest)
            self._rest = b""

    def _split(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        room = KEPT_LINES - self._lines
        self.dropped += max(len(lines) - room, 0)
        for line in lines[:room]:
            self._emit(line)
        if len(self._rest) > LONGEST_LINE:
            self._emit(self._rest)
            self._rest = b""

    def _emit(self, line: bytes) -> None:
        self._lines += 1
        self._write(line[:LONGEST_LINE].decode(errors="replace").rstrip("\r"))
