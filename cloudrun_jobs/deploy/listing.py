"""Read the declared jobs with their schedules, last runs, and, from Google, drift and pauses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from cloudrun_jobs import conf
from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.conf import DEFAULT_ALIAS
from cloudrun_jobs.deploy import overview
from cloudrun_jobs.deploy.overview import Overview
from cloudrun_jobs.exceptions import CloudRunJobsError, InvalidJob
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.registry import find_jobs
from cloudrun_jobs.runs.data import LISTED, listed_data
from cloudrun_jobs.runs.due import DueSchedule, due_schedules
from cloudrun_jobs.spec import JobSpec, Schedule

Error = TypeVar("Error")

if TYPE_CHECKING:
    from cloudrun_jobs.backends.cloudrun import CloudRunBackend
    from cloudrun_jobs.models.querysets import JobRunQuerySet


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
            "drift": None if cloud is None else [*map(str, cloud.changes.get(name, ()))],
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


def read(
    backend: CloudRunBackend | None = None, *, only: str | None = None, runs: JobRunQuerySet | None = None
) -> Listing:
    """Return all declared jobs, or one; with a backend, also what Google's services know of them.

    A last run that is not among `runs` is left out. Raises `CloudRunJobsError` for invalid settings.
    """
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
    drift = None
    if backend is not None:
        unreadable = {*invalid, *found.unreadable}
        drift = overview.read([*jobs.values()], backend, unreadable=unreadable, orphans=only is None)
    recorded = JobRun.objects.all() if runs is None else runs
    return Listing(
        specs=specs,
        due=due,
        last_runs=recorded.last_runs(conf.load().environment, [*jobs], LISTED),
        drift=drift,
        invalid=_selected(invalid, only),
        unreadable=_selected(found.unreadable, only),
    )


def _selected(errors: Mapping[str, Error], only: str | None) -> dict[str, Error]:
    return {name: error for name, error in errors.items() if only in {None, name}}
