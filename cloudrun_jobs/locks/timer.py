"""Watch the deadlines of all leases and their statements, with one thread per process that nothing delays.

It receives changes without a Python lock, so a signal handler may make them and cannot leave a lock held.
"""

from __future__ import annotations

import math
import os
import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Protocol


class Timed(Protocol):
    """An object with deadlines, by the monotonic clock. `on_deadline()` must not block."""

    def next_deadline(self) -> float: ...

    def on_deadline(self) -> None: ...


class LeaseTimer:
    """Calls `on_deadline()` of what it watches when its deadline comes."""

    def __init__(self) -> None:
        self._watched: dict[Timed, None] = {}
        self._alarm: SimpleQueue[float] = SimpleQueue()  # Its put() may interrupt itself.
        self._wakes_at = self._announced = math.inf
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def is_watching(self) -> bool:
        """True if this process holds a lease."""
        return bool(self._watched)

    def watch(self, timed: Timed) -> None:
        self._watched[timed] = None
        if self._thread is None:
            self._start()
        elif (deadline := timed.next_deadline()) < self._wakes_at:
            self._alarm.put(deadline)

    def unwatch(self, timed: Timed) -> None:
        # Without an alarm: one needless wakeup costs less than one per release.
        self._watched.pop(timed, None)

    def wake(self) -> None:
        """Look at all deadlines now."""
        self._alarm.put(math.inf)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="cloudrun_jobs-lease-timer", daemon=True)
                thread.start()  # It may fail; the next lease then tries again.
                self._thread = thread

    def _run(self) -> None:
        while True:
            self._sleep()
            now = time.monotonic()
            for timed in list(self._watched):
                if timed.next_deadline() <= now:
                    with suppress(Exception):  # A failure, as when no thread can start, must not stop the others.
                        timed.on_deadline()

    def _sleep(self) -> None:
        # First, so a `watch()` in the meantime sends an alarm.
        self._wakes_at = math.inf
        # Includes the deadline announced last: its lease may be released, and the next one need not send an alarm.
        self._wakes_at = min([self._announced, *(timed.next_deadline() for timed in list(self._watched))])
        seconds = max(0.0, self._wakes_at - time.monotonic())
        self._announced = math.inf
        with suppress(Empty):
            self._announced = self._alarm.get(
                timeout=None if seconds == math.inf else min(seconds, threading.TIMEOUT_MAX)
            )


timer = LeaseTimer()


def _reset_after_fork() -> None:
    # A child has neither the parent's thread nor its leases.
    timer.__init__()  # type: ignore[misc]


os.register_at_fork(after_in_child=_reset_after_fork)
