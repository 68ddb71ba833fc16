"""Split the output of a process into lines, up to a maximum size."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK_BYTES = 1 << 18
MAX_LINE_BYTES = 256 * 1024  # Cloud Logging rejects entries above 256 KiB.
# Per stream of an attempt: the output of a task is unbounded, the emulator's memory is not.
MAX_BYTES = 8 * 1024 * 1024
MAX_LINES = 20_000


class Stream:
    """An output stream of a process. Call `read` when the file descriptor is readable."""

    def __init__(self, fd: int, write: Callable[[str], None]) -> None:
        self.fd = fd
        self.dropped = 0
        self._write = write
        self._incomplete_line = b""
        self._bytes = 0
        self._lines = 0

    def read(self) -> bool:
        """Read the available output; return False at the end of the stream."""
        chunk = os.read(self.fd, CHUNK_BYTES)
        if self._bytes >= MAX_BYTES or self._lines >= MAX_LINES:
            self.dropped += chunk.count(b"\n")
            return bool(chunk)
        self._bytes += len(chunk)
        self._split(chunk)
        return bool(chunk)

    def close(self) -> None:
        os.close(self.fd)
        if self._incomplete_line:
            self._emit(self._incomplete_line)
            self._incomplete_line = b""

    def _split(self, chunk: bytes) -> None:
        *lines, self._incomplete_line = (self._incomplete_line + chunk).split(b"\n")
        capacity = MAX_LINES - self._lines
        self.dropped += max(len(lines) - capacity, 0)
        for line in lines[:capacity]:
            self._emit(line)
        if len(self._incomplete_line) > MAX_LINE_BYTES:
            self._emit(self._incomplete_line)
            self._incomplete_line = b""

    def _emit(self, line: bytes) -> None:
        self._lines += 1
        self._write(line[:MAX_LINE_BYTES].decode(errors="replace").rstrip("\r"))
