"""Compare the Cloud Run Jobs and the Scheduler jobs with the code, job by job, without changing anything."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from cloudrun_jobs import conf
from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.deploy import jobs as job_declarations
from cloudrun_jobs.deploy import schedules
from cloudrun_jobs.deploy.plan import Change, Desired, Existing, Plan, plan
from cloudrun_jobs.deploy.plan.planning import reject_duplicate_ids
from cloudrun_jobs.exceptions import CloudRunJobsError
from cloudrun_jobs.spec import JobSpec

if TYPE_CHECKING:
    from cloudrun_jobs.backends.cloudrun import CloudRunBackend


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """The changes that a sync would make, and the errors of the jobs that cannot be planned."""

    plan: Plan
    desired: Sequence[Desired] = ()
    errors: Mapping[str, CloudRunJobsError] = field(default_factory=dict)  # By command.


def command_of(change: Change) -> str | None:
    """Return the command that declares, or once declared, the resource."""
    if change.desired is not None:
        return change.desired.ownership.command
    owner = change.existing.ownership if change.existing else None
    return owner.command if owner else None


def job_drift(
    jobs: Iterable[CloudRunJobs],
    existing: Sequence[Existing],
    backend: CloudRunBackend,
    *,
    commands: Collection[str] | None = None,
    unreadable: Collection[str] = (),
) -> Drift:
    """Compare the Cloud Run Jobs; `existing` is what the store `Jobs` lists.

    The image is compared only where the code declares one. With `commands`, only their resources can be orphans.
    Those of the commands `unreadable` are none.
    """
    declare = partial(job_declarations.desired, backend=backend)
    return _drift(jobs, existing, backend, declare, job_declarations.is_deployed, commands, unreadable)


def schedule_drift(
    jobs: Iterable[CloudRunJobs],
    existing: Sequence[Existing],
    backend: CloudRunBackend,
    *,
    commands: Collection[str] | None = None,
    unreadable: Collection[str] = (),
) -> Drift:
    """Compare the Scheduler jobs; `existing` is what the store `Schedules` lists.

    With `commands`, only their resources can be orphans.
    Those of the commands `unreadable` are none.
    """
    declare = partial(schedules.desired, backend=backend)
    return _drift(jobs, existing, backend, declare, _is_scheduled, commands, unreadable)


def _is_scheduled(spec: JobSpec, backend: CloudRunBackend) -> bool:
    return not spec.schedules or schedules.is_deployed(spec, backend)


def _drift(
    jobs: Iterable[CloudRunJobs],
    existing: Sequence[Existing],
    backend: CloudRunBackend,
    declare: Callable[[list[CloudRunJobs]], Sequence[Desired]],
    is_deployed: Callable[[JobSpec, CloudRunBackend], bool],
    commands: Collection[str] | None,
    unreadable: Collection[str],
) -> Drift:
    environment, by_id = backend.settings.environment, {item.id: item for item in existing}
    desired: list[Desired] = []
    errors: dict[str, CloudRunJobsError] = {}
    other_backends: dict[str, str] = {}
    for job in jobs:
        try:
            own = declare([job])
            reject_duplicate_ids([*desired, *own])
            plan(own, [by_id[item.id] for item in own if item.id in by_id], environment=environment)
            if not is_deployed(job.spec, backend):
                other_backends[job.command_name] = job.spec.backend_alias or conf.DEFAULT_ALIAS
        except CloudRunJobsError as error:
            errors[job.command_name] = error
        else:
            desired += own
    whole = plan(desired, existing, environment=environment, commands=commands, other_backends=other_backends)
    # The resources of a job with an error, or of a command that cannot be imported, are unknown.
    unknown = {*errors, *unreadable}
    orphans = tuple(change for change in whole.orphans if command_of(change) not in unknown)
    return Drift(plan=replace(whole, orphans=orphans), desired=tuple(desired), errors=errors)
