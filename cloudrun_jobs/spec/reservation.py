"""When a reserved run is due, as the service that starts it can say it.

An entry of Cloud Scheduler says it to the minute, and without a year; a task of Cloud Tasks exactly.
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

LONGEST = timedelta(days=30)  # That Cloud Tasks keeps a task.

# An entry must be there before its minute begins, or it is first due a year later.
NOTICE = timedelta(seconds=30)

ZONES_OF_LAST_RESORT = ("Etc/UTC",)  # Where no time comes twice, and none is skipped.


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """A moment in UTC, and, for Cloud Scheduler, the schedule that is due then and not before."""

    at: datetime  # With a schedule, a whole minute.
    cron: str = ""
    time_zone: str = ""


def to_utc(at: At, now: datetime) -> datetime:
    """Return the time that `reserve()` was given, in UTC. Raises `InvalidArguments`."""
    if isinstance(at, datetime):
        time = _aware(at)
    elif isinstance(at, timedelta | int | float) and not isinstance(at, bool):
        time = now + (at if isinstance(at, timedelta) else timedelta(seconds=at))
    else:
        expected = "expected a datetime, a timedelta or a number of seconds"
        raise InvalidArguments(f"reserve(): {expected}, got {type(at).__name__}.")
    if time < now:
        hint = "delay() runs it now."
        raise InvalidArguments(f"reserve(): expected a time to come, got {time.isoformat()}.", hint=hint)
    return time.astimezone(UTC)


def _aware(at: datetime) -> datetime:
    if timezone.is_aware(at):
        return at
    if settings.USE_TZ:
        hint = "Make it aware: django.utils.timezone.make_aware(at), or datetime(..., tzinfo=...)."
        raise InvalidArguments(f"reserve(): expected an aware datetime, got {at.isoformat()}.", hint=hint)
    return timezone.make_aware(at)


def reservation_at(time: datetime, time_zone: str, now: datetime) -> Reservation:
    """Return the first moment that is not before the time and can be reserved. Raises `InvalidArguments`."""
    # Here too where the job runs in this process: what would be refused in the cloud is.
    if conf.load().options.get("reservations") == CLOUD_TASKS:
        return _task(time, now)
    return _schedule(time, time_zone, now)


def _task(time: datetime, now: datetime) -> Reservation:
    if time > now + LONGEST:
        raise InvalidArguments(
            f"reserve(): expected a time within 30 days, got {time.isoformat()}.",
            hint="Cloud Tasks keeps a task no longer. Call reserve() nearer to that time, or use Cloud Scheduler.",
        )
    return Reservation(at=time)


def _schedule(time: datetime, time_zone: str, now: datetime) -> Reservation:
    at = _minute(max(time, now + NOTICE))
    for zone in (time_zone, *ZONES_OF_LAST_RESORT):
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
