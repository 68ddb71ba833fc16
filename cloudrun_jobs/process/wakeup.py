"""Run the handler of a signal even if the signal arrived just before the main thread went to sleep.

Python only sets a flag; the main thread runs the handler between two steps. If the flag is set just before a
system call, or if the kernel delivers the signal to another thread, the call continues: SIGTERM waits for the end
of an hour's `time.sleep()`. But Python writes the signal's number to `signal.set_wakeup_fd()` at once. A thread
reads it, and sends the main thread another signal until its handler has run.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Self

REPEAT_INTERVAL = 0.5  # seconds; psycopg looks at signals after a tenth of a second without any
STOP_BYTE = 0  # Not the number of a signal.

_active: list[SignalWakeup] = []


def is_active() -> bool:
    """Return True inside the block of a `SignalWakeup`."""
    return bool(_active)


def acknowledge() -> None:
    """Stop the notifications; to be called in the handler of their signal."""
    for wakeup in _active:
        wakeup._acknowledged = wakeup._signalled


class SignalWakeup:
    """Calls `notify` for each of the signals, repeatedly, until `acknowledge()` is called.

    For the main thread, while the block runs. `notify` sends a different signal, or returns False if that signal
    has no handler.
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
        """Watch the signals, unless the process has a wakeup fd already: an event loop's."""
        existing = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        if existing != -1:
            signal.set_wakeup_fd(existing)
        threading.Thread(target=self._listen, name="cloudrun_jobs signals", daemon=True).start()
        _active.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        if os.getpid() != self._process:
            return  # A forked child also unwinds through here; `_abandon_after_fork()` has cleaned up.
        _active.remove(self)
        self._restore_wakeup_fd()
        self._over.set()
        # Closing the fd would not end the thread's read: a forked child may have a copy of it.
        with suppress(BlockingIOError):
            os.write(self._write_fd, bytes([STOP_BYTE]))
        os.close(self._write_fd)

    def _restore_wakeup_fd(self) -> None:
        current = signal.set_wakeup_fd(-1)
        if current != self._write_fd:
            signal.set_wakeup_fd(current)

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


def _abandon_after_fork() -> None:
    """Leave the signals to the parent, and the thread that reads them."""
    for wakeup in _active:
        wakeup._restore_wakeup_fd()
        os.close(wakeup._write_fd)
        os.close(wakeup._read_fd)
    _active.clear()


os.register_at_fork(after_in_child=_abandon_after_fork)
