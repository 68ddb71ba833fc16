"""Which tick of which schedule started an execution, and whether it comes too late.

Cloud Scheduler delivers a tick at least once, and its headers do not reach the container. So the time from one
due time to the next is one tick, and one run.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

# A run that has not begun so long after its reserved time never will.
MAX_RESERVATION_DELAY = timedelta(hours=24)

EARLY = timedelta(seconds=5)  # A delivery does not come before its time, but clocks differ.


def tick(schedule: str, started: datetime) -> tuple[str, datetime | None]:
    """Return the entry of Cloud Scheduler and the due time, from "entry|cron|time zone" and the execution's start.

    The time is None where it cannot be computed, as for the English-like schedules.
    """
    from cloudrun_jobs.cron import last_time  # A run that no schedule started does not pay for it.

    entry, _, rest = schedule.partition("|")
    expression, _, zone = rest.partition("|")
    return entry, last_time(expression, zone, started + EARLY) if zone else None


def is_over(reserved_for: str) -> bool:
    """Say whether a container that was told this time has come too late to begin: a schedule has no year."""
    return bool(reserved_for) and datetime.now(UTC) > datetime.fromisoformat(reserved_for) + MAX_RESERVATION_DELAY
