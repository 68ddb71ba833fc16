"""How an entry of Cloud Scheduler calls."""

from __future__ import annotations

from datetime import timedelta

from ..backends.cloudrun import entries
from ..plans import Declared
from .durations import seconds

RETRIES = ("retry_count", "max_retry_duration", "min_backoff_duration", "max_backoff_duration", "max_doublings")


def body(schedule: Declared) -> bytes:
    fields = schedule.fields
    return entries.written(entries.tick_body(fields["args"], fields["tick"], to_service=fields["to_service"]))


def delivery(schedule: Declared) -> tuple[str | None, dict[str, str | int]]:
    """Return how long an attempt may take, and how it is repeated: what of it is declared."""
    found = {name: schedule.fields[name] for name in RETRIES if name in schedule.fields}
    retries = {name: seconds(value) if isinstance(value, timedelta) else value for name, value in found.items()}
    deadline = schedule.fields.get("attempt_deadline")
    return seconds(deadline) if deadline else None, retries
