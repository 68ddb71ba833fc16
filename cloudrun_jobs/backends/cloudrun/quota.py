"""Keeps this process below the number of executions that a project may start in a minute.

Ten thousand calls of `delay()` then wait for one another, where Cloud Run would refuse most of them.
"""

from __future__ import annotations

import time
from collections import deque
from threading import Lock

MINUTE = 60.0

_starts: deque[float] = deque()
_lock = Lock()


def wait_turn(per_minute: int) -> None:
    """Return when fewer than so many turns were taken in the last minute."""
    while (wait := _take(per_minute)) > 0:
        time.sleep(wait)


def _take(per_minute: int) -> float:
    """Take a turn and return 0, or return how many seconds there is none."""
    now = time.monotonic()
    with _lock:
        while _starts and _starts[0] <= now - MINUTE:
            _starts.popleft()
        if len(_starts) < per_minute:
            _starts.append(now)
            return 0.0
        return _starts[-per_minute] + MINUTE - now
