"""Read the declared jobs for a command, and describe them on a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from django.conf import settings
from django.core.management.base import BaseCommand

from cloudrun_jobs.deploy import listing
from cloudrun_jobs.deploy.listing import Listing
from cloudrun_jobs.deploy.target import cloudrun_backend_or_none
from cloudrun_jobs.management.exits import ERROR, raise_together, status_of
from cloudrun_jobs.management.selection import cloudrun_backend
from cloudrun_jobs.spec import JobSpec, Schedule
from cloudrun_jobs.terminal import format_minute


def read(*, offline: bool = False, check: bool = False, only: str | None = None) -> Listing:
    """Return all declared jobs, or one. Raises `CloudRunJobsError` for invalid settings."""
    backend = cloudrun_backend() if check else cloudrun_backend_or_none()
    return listing.read(None if offline else backend, only=only)


def raise_errors(command: BaseCommand, found: Listing) -> None:
    """Raise `CommandError` if the listing is incomplete. Call this after printing."""
    statuses = {status_of(error) for error in found.drift_errors} or {ERROR}
    raise_together(command, found.error_texts, returncode=max(statuses))


def state_of(listed: Listing, spec: JobSpec, now_paused: Sequence[str]) -> str:
    """Return a short text of what is unusual about the job."""
    found, cloud = [], listed.drift
    if overdue := [due.overdue_since for due in listed.due.get(spec.command, ()) if due.overdue_since]:
        found.append(f"overdue since {format_minute(min(overdue))}")
    if now_paused:
        found.append("paused" if len(now_paused) == len(spec.schedules) else f"{len(now_paused)} paused")
    if cloud is not None:
        found += [*map(str, cloud.changes.get(spec.command, ())), *cloud.troubles.get(spec.command, ())]
    return "; ".join(text if count == 1 else f"{text} ({count})" for text, count in Counter(found).items())


def paused_of(found: Listing, spec: JobSpec) -> list[str]:
    """Return the job's Scheduler jobs that are paused."""
    paused = found.drift.paused if found.drift else frozenset()
    return [due.scheduler_job for due in found.due.get(spec.command, ()) if due.scheduler_job in paused]


def schedule_text(schedule: Schedule) -> str:
    """Return the expression, with its time zone if that differs from the project's."""
    zone = str(schedule.time_zone)
    return schedule.cron if zone == settings.TIME_ZONE else f"{schedule.cron} {zone}"
