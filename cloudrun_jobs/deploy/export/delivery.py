"""How an entry of Cloud Scheduler calls."""

from __future__ import annotations

from datetime import timedelta

from cloudrun_jobs.backends.cloudrun import targets
from cloudrun_jobs.deploy.export.durations import seconds
from cloudrun_jobs.deploy.plan import Desired

RETRIES = ("retry_count", "max_retry_duration", "min_backoff_duration", "max_backoff_duration", "max_doublings")


def body(schedule: Desired) -> bytes:
    fields = schedule.fields
    return targets.encode_body(targets.tick_body(fields["args"], fields["tick"], to_service=fields["to_service"]))


def delivery(schedule: Desired) -> tuple[str | None, dict[str, str | int]]:
    """Return how long an attempt may take, and how it is repeated: what of it is declared."""
    found = {name: schedule.fields[name] for name in RETRIES if name in schedule.fields}
    retries = {name: seconds(value) if isinstance(value, timedelta) else value for name, value in found.items()}
    deadline = schedule.fields.get("attempt_deadline")
    return seconds(deadline) if deadline else None, retries
