"""One thread in a process that watches all leases' times, and does nothing that could make it late."""

from __future__ import annotations

import math
import os
import threading
import time
from typing import Protocol


class Timed(Protocol):
    """What has times to be watched."""

    def due(self) -> float:
        """Return the next moment of the monotonic clock at which `tick()` has something to do."""

    def tick(self) -> None:
        """Do what is due, without waiting for anything."""


class Clock:
    """Calls `tick()` of what it watches when it is due."""

    def __init__(self) -> None:
        self._watched: set[Timed] = set()
        self._changed = threading.Condition()  # On a lock that a signal handler may take once more.
        self._wakes_at = -math.inf  # No thread yet.

    def watch(self, timed: Timed) -> None:
        """Watch from now on."""
        with self._changed:
            self._watched.add(timed)
            if self._wakes_at == -math.inf:
                self._wakes_at = time.monotonic()
                threading.Thread(target=self._run, name="cloudrun_jobs-clock", daemon=True).start()
            elif timed.due() < self._wakes_at:
                self._changed.notify()

    def forget(self, timed: Timed) -> None:
        """Watch no longer."""
        # No notice: a thread woken for nothing costs less than one woken at each release.
        with self._changed:
            self._watched.discard(timed)

    def _run(self) -> None:
        while True:
            for timed in self._due():
                timed.tick()

    def _due(self) -> list[Timed]:
        with self._changed:
            self._wakes_at = min((timed.due() for timed in self._watched), default=math.inf)
            seconds = self._wakes_at - time.monotonic()
            if seconds > 0:
                self._changed.wait(None if seconds == math.inf else min(seconds, threading.TIMEOUT_MAX))
            now = time.monotonic()
            return [timed for timed in self._watched if timed.due() <= now]


clock = Clock()


def _begin_anew() -> None:
    # The parent's thread is not here, and its leases are not this process's.
    clock.__init__()  # type: ignore[misc]


os.register_at_fork(after_in_child=_begin_anew)
