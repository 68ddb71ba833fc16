"""Keeps a process below a number of calls per minute, which is how Google counts them, and waits beyond it."""

from __future__ import annotations

import time
from collections import deque
from threading import Lock

from google.api_core.exceptions import TooManyRequests
from google.api_core.retry import Retry, if_exception_type

MINUTE = 60.0

# A refusal for want of quota did nothing, so even what must not be done twice may be asked for again.
WHEN_EXHAUSTED = Retry(if_exception_type(TooManyRequests), initial=1.0, multiplier=2.0, maximum=20.0, timeout=90.0)


class Quota:
    """So many turns in any minute: those who come later wait."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._taken: deque[float] = deque()
        self._lock = Lock()

    def wait_for_quota(self) -> None:
        """Return when fewer than so many turns were taken in the last minute."""
        while (wait := self._take()) > 0:
            time.sleep(wait)

    def _take(self) -> float:
        """Take a turn and return 0, or return in how many seconds there is one."""
        now = time.monotonic()
        with self._lock:
            while self._taken and self._taken[0] <= now - MINUTE:
                self._taken.popleft()
            if len(self._taken) < self.per_minute:
                self._taken.append(now)
                return 0.0
            return self._taken[0] + MINUTE - now
