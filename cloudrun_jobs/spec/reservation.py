"""Compute when a reserved run is due, with the precision of the service that starts it.

A Scheduler job has a time to the minute, without a year; a task of Cloud Tasks has an exact one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias
from zoneinfo import ZoneInfo

from django.conf import settings
from django.utils import timezone

from cloudrun_jobs import conf, cron
from cloudrun_jobs.exceptions import InvalidArguments

At: TypeAlias = datetime | timedelta | float

MINUTE = timedelta(minutes=1)

# The values of OPTIONS["reservations"].
CLOUD_SCHEDULER, CLOUD_TASKS = "cloud_scheduler", "cloud_tasks"

MAX_CLOUD_TASKS_DELAY = timedelta(days=30)

# A Scheduler job created after its minute has begun is first due a year later.
MIN_SCHEDULER_DELAY = timedelta(seconds=30)

FALLBACK_TIME_ZONE = "Etc/UTC"  # No time of day is skipped or repeated.


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """A time in UTC, and, for Cloud Scheduler, a schedule that is due then and not before."""

    at: datetime  # With a schedule, a whole minute.
    cron: str = ""
    time_zone: str = ""


def to_utc(at: At, now: datetime) -> datetime:
    """Return the time passed to `reserve()`, in UTC. Raises `InvalidArguments`."""
    if isinstance(at, datetime):
        time = _aware(at)
    elif isinstance(at, timedelta | int | float) and not isinstance(at, bool):
        time = now + (at if isinstance(at, timedelta) else timedelta(seconds=at))
    else:
        expected = "expected a datetime, a timedelta or a number of seconds"
        raise InvalidArguments(f"reserve(): {expected}, got {type(at).__name__}.")
    if time < now:
        hint = "delay() runs it now."
        raise InvalidArguments(f"reserve(): expected a future time, got {time.isoformat()}.", hint=hint)
    return time.astimezone(UTC)


def _aware(at: datetime) -> datetime:
    if timezone.is_aware(at):
        return at
    if settings.USE_TZ:
        hint = "Make it aware: django.utils.timezone.make_aware(at), or datetime(..., tzinfo=...)."
        raise InvalidArguments(f"reserve(): expected an aware datetime, got {at.isoformat()}.", hint=hint)
    return timezone.make_aware(at)


def reservation_at(time: datetime, time_zone: str, now: datetime) -> Reservation:
    """Return the first time, not before `time`, that the service can hold. Raises `InvalidArguments`."""
    # Also where the job runs in this process: what the cloud would reject fails there too.
    if conf.load().options.get("reservations") == CLOUD_TASKS:
        return _task(time, now)
    return _schedule(time, time_zone, now)


def _task(time: datetime, now: datetime) -> Reservation:
    if time > now + MAX_CLOUD_TASKS_DELAY:
        raise InvalidArguments(
            f"reserve(): expected a time within 30 days, got {time.isoformat()}.",
            hint="Cloud Tasks keeps a task no longer. Call reserve() nearer to that time, or use Cloud Scheduler.",
        )
    return Reservation(at=time)


def _schedule(time: datetime, time_zone: str, now: datetime) -> Reservation:
    at = _minute(max(time, now + MIN_SCHEDULER_DELAY))
    for zone in (time_zone, FALLBACK_TIME_ZONE):
        wall = at.astimezone(ZoneInfo(zone))
        expression = f"{wall.minute} {wall.hour} {wall.day} {wall.month} *"
        if cron.next_time(expression, zone, now) == at:
            return Reservation(at=at, cron=expression, time_zone=zone)
    raise InvalidArguments(
        f"reserve(): expected a time within a year, got {at.isoformat()}.",
        hint="A schedule names no year, so it would be due a year too soon. Call reserve() nearer to that time.",
    )


def _minute(time: datetime) -> datetime:
    whole = time.replace(second=0, microsecond=0)
    return whole if whole == time else whole + MINUTE
