"""Keep a process below a number of calls per minute, as Google counts them."""

from __future__ import annotations

import time
from collections import deque
from threading import Lock

from google.api_core.exceptions import TooManyRequests
from google.api_core.retry import Retry, if_exception_type

WINDOW_SECONDS = 60.0

# A call that was rejected for lack of quota did nothing, so even one that is not idempotent can be retried.
RETRY_WHEN_EXHAUSTED = Retry(
    if_exception_type(TooManyRequests), initial=1.0, multiplier=2.0, maximum=20.0, timeout=90.0
)


class Quota:
    """A limit of calls in any minute; calls beyond it wait."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._calls: deque[float] = deque()  # The times of those in the last minute.
        self._lock = Lock()

    def wait(self) -> None:
        """Return when another call may be made, and count it."""
        while (seconds := self._take()) > 0:
            time.sleep(seconds)

    def _take(self) -> float:
        """Count a call and return 0, or return the seconds until one may be made."""
        now = time.monotonic()
        with self._lock:
            while self._calls and self._calls[0] <= now - WINDOW_SECONDS:
                self._calls.popleft()
            if len(self._calls) < self.per_minute:
                self._calls.append(now)
                return 0.0
            return self._calls[0] + WINDOW_SECONDS - now
