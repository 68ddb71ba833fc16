"""Identify the tick of a schedule that started an execution, and detect a start that is too late.

Cloud Scheduler delivers a tick at least once, and its headers do not reach the container. So an execution belongs
to the last due time before its start: one due time is one tick, and one run.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

# A reserved run that has not started this long after its time never starts.
MAX_RESERVATION_DELAY = timedelta(hours=24)

CLOCK_TOLERANCE = timedelta(seconds=5)  # Cloud Scheduler's clock may be ahead of the container's.

SCHEDULER_JOB_PATTERN = r"[A-Za-z0-9_-]{1,200}"  # As many characters as its column has.

SEPARATOR = "|"  # Neither in names of Scheduler jobs, nor in expressions, nor in time zones.


# What the user of a skipped tick can do; "%s" is the Cloud Run Job.
REPEAT_TICK_HINT = "To run the job all the same, call delay(), or `gcloud run jobs execute %s`, which has no tick."


class ScheduleTick(NamedTuple):
    """The schedule that started an execution, in the environment of its container."""

    scheduler_job: str
    cron: str
    time_zone: str

    def encode(self) -> str:
        """Return "Scheduler job|cron|time zone"."""
        return SEPARATOR.join((self.scheduler_job, self.cron, self.time_zone))

    @classmethod
    def decode(cls, text: str) -> ScheduleTick | None:
        """Return the tick that `encode()` wrote, or None for any other text."""
        parts = text.split(SEPARATOR)
        is_tick = len(parts) == 3 and all(parts) and re.fullmatch(SCHEDULER_JOB_PATTERN, parts[0])
        return cls(*parts) if is_tick else None

    def due(self, started: datetime) -> datetime | None:
        """Return the due time of an execution that started then; None if it cannot be computed.

        It cannot for English-like schedules and for invalid ones.
        """
        from cloudrun_jobs.cron import last_time  # A run that no schedule started does not need it.
        from cloudrun_jobs.exceptions import InvalidSchedule

        try:
            return last_time(self.cron, self.time_zone, started + CLOCK_TOLERANCE)
        except (InvalidSchedule, KeyError, ValueError, OSError):  # The latter for an unknown time zone.
            return None


def is_over(reserved_for: str) -> bool:
    """Return True if a container with this reserved time starts too late: a schedule names no year.

    A text that is no time, or one without a time zone, is ignored.
    """
    try:
        return datetime.now(UTC) - MAX_RESERVATION_DELAY > datetime.fromisoformat(reserved_for)
    except (ValueError, TypeError):
        return False
