"""Compute when schedules are due, and since when they are overdue."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from cloudrun_jobs import conf, cron
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.spec import JobSpec

START_GRACE = timedelta(minutes=5)  # From a due time to its run, for retries and container starts.


@dataclass(frozen=True, slots=True)
class DueSchedule:
    """One schedule of a job.

    Both times are None for English-like schedules, whose due times cannot be computed.
    """

    command: str
    scheduler_job: str
    next_due: datetime | None
    #: The first due time after the last tick, if no run has started by `START_GRACE` after it. None for a schedule
    #: that has never started a run: it may not be deployed yet.
    overdue_since: datetime | None


def due_schedules(specs: Iterable[JobSpec]) -> list[DueSchedule]:
    """Return the schedules of the jobs, with one query at most."""
    now, environment = timezone.now(), conf.load().environment
    declared = [
        (spec.command, schedule, spec.scheduler_job_id(schedule)) for spec in specs for schedule in spec.schedules
    ]
    ticks = JobRun.objects.last_ticks(environment, [scheduler_job for _, _, scheduler_job in declared])
    found = []
    for command, schedule, scheduler_job in declared:
        zone, last = str(schedule.time_zone), ticks.get(scheduler_job)
        missed = last and cron.next_time(schedule.cron, zone, last)
        is_overdue = missed is not None and missed + START_GRACE <= now
        next_due = cron.next_time(schedule.cron, zone, now)
        found.append(DueSchedule(command, scheduler_job, next_due, missed if is_overdue else None))
    return found
