"""The waits between the attempts of Cloud Scheduler and Cloud Tasks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

LONGEST = timedelta(days=36_500)  # Later, the retry would be beyond `datetime.max`.


@dataclass(frozen=True, slots=True)
class Backoff:
    minimum: timedelta
    maximum: timedelta
    doublings: int

    def wait(self, retry: int) -> timedelta:
        """Return the wait before a retry, counted from 0: it doubles `doublings` times, then grows linearly.

        From a minimum of 10 s with 3 doublings: 10, 20, 40, 80, 160, 240 … up to the maximum.
        """
        # More doublings than this exceed every maximum; timedelta has a limit of its own.
        doubled = min(retry, self.doublings, 40)
        seconds = self.minimum.total_seconds() * 2**doubled * (retry - doubled + 1)
        return min(timedelta(seconds=min(seconds, self.maximum.total_seconds())), self.maximum, LONGEST)
