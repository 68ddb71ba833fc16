"""Sees that the handler of a signal runs, though the signal came just before the main thread went to sleep.

Python only notes a signal; the main thread runs its handler when it next looks. If the note is made between that
look and a system call, or while the kernel has another thread take the signal, nothing ends the call: SIGTERM
waits until an hour's `time.sleep()` is over. But its number is written to `signal.set_wakeup_fd()` at once. A
thread reads that, and knocks at the main thread until it has answered.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Self

REPEAT_INTERVAL = (
    0.5  # Seconds between two knocks. psycopg looks at signals after a tenth of a second without any.
)
STOP_BYTE = 0  # The number of no signal.


class SignalWakeup:
    """Calls `knock` for each signal of `numbers`, again and again until its handler has called `answer()`.

    For the main thread, while the block runs. `knock` sends a signal that is none of the numbers, or returns
    False if nobody would answer it.
    """

    def __init__(self, numbers: Iterable[int], notify: Callable[[], bool]) -> None:
        self._numbers = set(numbers)
        self._notify = notify
        self._signalled = self._acknowledged = 0
        self._over = threading.Event()
        self._process = os.getpid()
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._write_fd, False)

    def __enter__(self) -> Self:
        """Hear of signals from now on, unless somebody else does: an event loop."""
        theirs = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        if theirs != -1:
            signal.set_wakeup_fd(theirs)
        threading.Thread(target=self._listen, name="cloudrun_jobs signals", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        if os.getpid() != self._process:
            return  # A fork leaves by the same door, and has been told by `abandon()`.
        self._restore_wakeup_fd()
        self._over.set()
        # A process that was forked off may hold this end, too, so that to close ours would not be noticed.
        with suppress(BlockingIOError):
            os.write(self._write_fd, bytes([STOP_BYTE]))
        os.close(self._write_fd)

    def abandon(self) -> None:
        """Leave it to the parent, whose pipe it is. For a process that was forked off."""
        self._restore_wakeup_fd()
        os.close(self._write_fd)
        os.close(self._read_fd)

    def _restore_wakeup_fd(self) -> None:
        ours = signal.set_wakeup_fd(-1)
        if ours != self._write_fd:
            signal.set_wakeup_fd(ours)

    def acknowledge(self) -> None:
        """Say, in the main thread, that handlers run."""
        self._acknowledged = self._signalled

    def _listen(self) -> None:
        while STOP_BYTE not in (numbers := os.read(self._read_fd, 100)):
            if self._numbers.intersection(numbers):
                self._repeat_until_acknowledged()
        os.close(self._read_fd)

    def _repeat_until_acknowledged(self) -> None:
        self._signalled += 1
        while self._acknowledged < self._signalled and self._notify():
            if self._over.wait(REPEAT_INTERVAL):
                return
