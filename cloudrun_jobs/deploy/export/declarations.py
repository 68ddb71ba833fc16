"""The jobs and schedules to export, and values that the formats share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from cloudrun_jobs.deploy.desired import INTERFACE_FIELDS, DesiredJob, DesiredSchedulerJob, Secret, WorkerPool
from cloudrun_jobs.deploy.export.alerts import Alerts
from cloudrun_jobs.deploy.plan.planning import reject_duplicate_ids
from cloudrun_jobs.exceptions import CloudRunJobsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Declarations:
    """The jobs, and the Scheduler jobs that start them, as the sync commands would write them; sorted by name."""

    project: str
    region: str
    scheduler_region: str
    jobs: Sequence[DesiredJob]
    schedules: Sequence[DesiredSchedulerJob]
    worker_pools: Sequence[WorkerPool] = ()
    alerts: Alerts | None = None

    def __post_init__(self) -> None:
        for name in ("jobs", "schedules"):
            items = getattr(self, name)
            reject_duplicate_ids(items)
            object.__setattr__(self, name, sorted(items, key=lambda item: item.id))
        for job in self.containers:
            if job.image is None:
                raise CloudRunJobsError(f"{job.label}: a job needs an image.", hint="Add --image IMAGE.")

    @property
    def containers(self) -> list[DesiredJob]:
        """The jobs and the worker pools."""
        return [*self.jobs, *(pool.job for pool in self.worker_pools)]

    def job_of(self, schedule: DesiredSchedulerJob) -> DesiredJob:
        return next(job for job in self.jobs if job.ownership.command == schedule.ownership.command)

    @property
    def jobs_without_access(self) -> list[str]:
        """The jobs and worker pools that read secrets, but name no account that could be given access to them."""
        return [job.label for job in self.containers if not job.service_account and secrets(job)]


def secrets(job: DesiredJob) -> list[str]:
    """Return the names of the secrets that a job reads."""
    return sorted({value.name for value in job.env_vars.values() if isinstance(value, Secret)})


def interface(job: DesiredJob) -> dict[str, Any]:
    """Return the network interface of a job; empty if it has none."""
    return {name: job.vpc[name] for name in INTERFACE_FIELDS if job.vpc.get(name)}


def present(**values: Any) -> dict[str, Any]:
    """Return the values that are neither None nor empty; 0 is kept."""
    return {name: value for name, value in values.items() if value is not None and value not in ("", [], {})}


def seconds(duration: timedelta) -> str:
    """Return a duration as "600s" or "0.5s"."""
    text = f"{duration.total_seconds():f}"
    return f"{text.rstrip('0').rstrip('.')}s"


def retry_config(schedule: DesiredSchedulerJob) -> dict[str, str | int]:
    """Return the declared retry fields, with durations as text."""
    retries = schedule.retry_config.items()
    return {name: seconds(value) if isinstance(value, timedelta) else value for name, value in retries}
