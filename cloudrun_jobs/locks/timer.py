"""One thread in a process that watches all leases' times, and does nothing that could make it late.

It is told of changes without any lock, so that a signal handler may tell it, and cannot leave one held.
"""

from __future__ import annotations

import math
import os
import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Protocol


class Watched(Protocol):
    """What has times to be watched."""

    def next_deadline(self) -> float:
        """Return the next moment of the monotonic clock at which `tick()` has something to do."""

    def on_deadline(self) -> None:
        """Do what is due, without waiting for anything."""


class LeaseTimer:
    """Calls `tick()` of what it watches when it is due."""

    def __init__(self) -> None:
        self._watched: dict[Watched, None] = {}
        self._alarm: SimpleQueue[float] = SimpleQueue()  # Its put() may interrupt itself.
        self._wakes_at = self._announced = math.inf
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def watch(self, timed: Watched) -> None:
        """Watch from now on."""
        self._watched[timed] = None
        if self._thread is None:
            self._start()
        elif (due := timed.next_deadline()) < self._wakes_at:
            self._alarm.put(due)

    def forget(self, timed: Watched) -> None:
        """Watch no longer."""
        # No notice: a thread woken for nothing costs less than one woken at each release.
        self._watched.pop(timed, None)

    def wake(self) -> None:
        """See at once what is due."""
        self._alarm.put(math.inf)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="cloudrun_jobs-clock", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            self._sleep()
            now = time.monotonic()
            for timed in list(self._watched):
                if timed.next_deadline() <= now:
                    timed.on_deadline()

    def _sleep(self) -> None:
        # Before looking: who comes while it looks must think that it will sleep for too long.
        self._wakes_at = math.inf
        # What was announced may be over, and the next of its kind be on its way: it need not wake anybody.
        self._wakes_at = min([self._announced, *(timed.next_deadline() for timed in list(self._watched))])
        seconds = max(0.0, self._wakes_at - time.monotonic())
        self._announced = math.inf
        with suppress(Empty):
            self._announced = self._alarm.get(
                timeout=None if seconds == math.inf else min(seconds, threading.TIMEOUT_MAX)
            )


timer = LeaseTimer()


def _reset_after_fork() -> None:
    # The parent's thread is not here, and its leases are not this process's.
    timer.__init__()  # type: ignore[misc]


os.register_at_fork(after_in_child=_reset_after_fork)
