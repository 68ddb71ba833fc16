"""Read the declared jobs with their schedules, last runs, drift and pauses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from cloudrun_jobs import conf
from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.conf import DEFAULT_ALIAS
from cloudrun_jobs.deploy import overview
from cloudrun_jobs.deploy.overview import Overview
from cloudrun_jobs.exceptions import CloudRunJobsError, InvalidJob
from cloudrun_jobs.management.exits import ERROR, raise_together, status_of
from cloudrun_jobs.management.selection import cloudrun_backend, cloudrun_backend_or_none
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.registry import find_jobs
from cloudrun_jobs.runs.data import LISTED, listed_data
from cloudrun_jobs.runs.due import DueSchedule, due_schedules
from cloudrun_jobs.spec import JobSpec, Schedule
from cloudrun_jobs.terminal import format_minute


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The declared jobs, with their records and their state in the cloud."""

    specs: Sequence[JobSpec]
    due: Mapping[str, Sequence[DueSchedule]]
    last_runs: Mapping[str, JobRun]
    drift: Overview | None  # None without a cloud.
    invalid: Mapping[str, InvalidJob] = field(default_factory=dict)
    unreadable: Mapping[str, BaseException] = field(default_factory=dict)

    @property
    def drift_errors(self) -> Sequence[CloudRunJobsError]:
        return self.drift.errors if self.drift else ()

    @property
    def error_texts(self) -> list[str]:
        """The errors that make the listing incomplete."""
        return [*dict.fromkeys(map(str, (*self.invalid.values(), *self.drift_errors)))]

    def raise_errors(self, command: BaseCommand) -> None:
        """Raise `CommandError` if the listing is incomplete. Call this after printing."""
        statuses = {status_of(error) for error in self.drift_errors} or {ERROR}
        raise_together(command, self.error_texts, returncode=max(statuses))

    @property
    def data(self) -> dict[str, Any]:
        return {
            "jobs": [self.job_data(spec) for spec in self.specs],
            "orphans": list(self.drift.orphans) if self.drift else None,
            "errors": self.error_texts,
            "import_errors": {name: f"{type(error).__name__}: {error}" for name, error in self.unreadable.items()},
        }

    def job_data(self, spec: JobSpec) -> dict[str, Any]:
        last, cloud, name = self.last_runs.get(spec.command), self.drift, spec.command
        schedules = zip(spec.schedules, self.due.get(name, ()), strict=True)
        return {
            "command": name,
            "job": spec.name,
            "backend": spec.backend_alias or DEFAULT_ALIAS,
            "schedules": [self._schedule_data(*each) for each in schedules],
            "last_run": last and listed_data(last),
            "drift": None if cloud is None else list(cloud.changes.get(name, ())),
            "problems": None if cloud is None else list(cloud.troubles.get(name, ())),
        }

    def _schedule_data(self, schedule: Schedule, due: DueSchedule) -> dict[str, Any]:
        return {
            "name": schedule.name,
            "cron": schedule.cron,
            "time_zone": str(schedule.time_zone),
            "scheduler_job": due.scheduler_job,
            "next_due": due.next_due,
            "overdue_since": due.overdue_since,
            "paused": None if self.drift is None else due.scheduler_job in self.drift.paused,
        }


def read(*, offline: bool = False, check: bool = False, only: str | None = None) -> Listing:
    """Return all declared jobs, or one. Raises `CloudRunJobsError` for invalid settings."""
    found, invalid = find_jobs(), dict[str, InvalidJob]()
    jobs = dict[str, CloudRunJobs]()
    for name, job in found.jobs.items():
        try:
            _ = job.spec
        except InvalidJob as error:
            invalid[name] = error
        else:
            jobs |= {name: job} if only in {None, name} else {}
    specs = [job.spec for job in jobs.values()]
    due: dict[str, list[DueSchedule]] = {}
    for each in due_schedules(specs):
        due.setdefault(each.command, []).append(each)
    return Listing(
        specs=specs,
        due=due,
        last_runs=JobRun.objects.last_runs(conf.load().environment, [*jobs], LISTED),
        drift=_drift([*jobs.values()], {*invalid, *found.unreadable}, offline=offline, check=check, only=only),
        invalid=invalid if only is None else {},
        unreadable=found.unreadable if only is None else {},
    )


def _drift(
    jobs: Sequence[CloudRunJobs], unreadable: set[str], *, offline: bool, check: bool, only: str | None
) -> Overview | None:
    backend = cloudrun_backend() if check else cloudrun_backend_or_none()
    if offline or backend is None:
        return None
    return overview.read(jobs, backend, unreadable=unreadable, orphans=only is None)


def state_of(listing: Listing, spec: JobSpec, now_paused: Sequence[str]) -> str:
    """Return a short text of what is unusual about the job."""
    found, cloud = [], listing.drift
    if overdue := [due.overdue_since for due in listing.due.get(spec.command, ()) if due.overdue_since]:
        found.append(f"overdue since {format_minute(min(overdue))}")
    if now_paused:
        found.append("paused" if len(now_paused) == len(spec.schedules) else f"{len(now_paused)} paused")
    if cloud is not None:
        found += [*cloud.changes.get(spec.command, ()), *cloud.troubles.get(spec.command, ())]
    return "; ".join(text if count == 1 else f"{text} ({count})" for text, count in Counter(found).items())


def paused_of(listing: Listing, spec: JobSpec) -> list[str]:
    """Return the job's Scheduler jobs that are paused."""
    paused = listing.drift.paused if listing.drift else frozenset()
    return [due.scheduler_job for due in listing.due.get(spec.command, ()) if due.scheduler_job in paused]


def schedule_text(schedule: Schedule) -> str:
    """Return the expression, with its time zone if that differs from the project's."""
    zone = str(schedule.time_zone)
    return schedule.cron if zone == settings.TIME_ZONE else f"{schedule.cron} {zone}"
