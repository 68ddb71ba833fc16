"""Pause and resume Scheduler jobs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from google.api_core.exceptions import FailedPrecondition, NotFound
from google.cloud.scheduler_v1.types import Job

from cloudrun_jobs.backends.cloudrun import clients
from cloudrun_jobs.backends.cloudrun.errors import ApiMethod, translate_errors
from cloudrun_jobs.backends.cloudrun.quota import RETRY_WHEN_EXHAUSTED
from cloudrun_jobs.backends.cloudrun.reservations import ADMIN
from cloudrun_jobs.exceptions import ServiceError
from cloudrun_jobs.spec import JobSpec

if TYPE_CHECKING:
    from cloudrun_jobs.backends.cloudrun import CloudRunBackend

HINTS: dict[type[Exception], str] = {
    NotFound: "Create it with `manage.py sync_cloudrun_schedules`.",
    FailedPrecondition: "Its last update failed, or Cloud Scheduler disabled it: run the sync again.",
}
GET = ApiMethod(permission="cloudscheduler.jobs.get", role="roles/cloudscheduler.viewer", hints=HINTS)
PAUSE = ApiMethod(permission="cloudscheduler.jobs.pause", role=ADMIN, hints=HINTS)
RESUME = ApiMethod(permission="cloudscheduler.jobs.enable", role=ADMIN, hints=HINTS)


class StateChange(NamedTuple):
    """What became of one Scheduler job."""

    scheduler_job: str
    is_changed: bool = False  #: False also if it was in that state already.
    error: ServiceError | None = None


def set_states(backend: CloudRunBackend, spec: JobSpec, *, paused: bool) -> Iterator[StateChange]:
    """Pause or resume the Scheduler jobs of a job one by one, also after an error of one of them."""
    for schedule in spec.schedules:
        scheduler_job = spec.scheduler_job_id(schedule)
        try:
            yield StateChange(scheduler_job, is_changed=_set_state(backend, scheduler_job, paused=paused))
        except ServiceError as error:
            yield StateChange(scheduler_job, error=error)


def _set_state(backend: CloudRunBackend, scheduler_job: str, *, paused: bool) -> bool:
    """Return False if it is in that state already."""
    client, name = clients.scheduler(backend.server), f"{backend.scheduler_parent}/jobs/{scheduler_job}"
    target = Job.State.PAUSED if paused else Job.State.ENABLED

    def is_in_state() -> bool:
        with translate_errors(name, GET, endpoint=backend.endpoint):
            found = client.get_job(name=name, retry=RETRY_WHEN_EXHAUSTED, timeout=backend.rpc_timeout)
        return bool(found.state == target)

    if is_in_state():
        return False
    change = client.pause_job if paused else client.resume_job
    try:
        with translate_errors(name, PAUSE if paused else RESUME, endpoint=backend.endpoint):
            change(name=name, retry=RETRY_WHEN_EXHAUSTED, timeout=backend.rpc_timeout)
    except ServiceError as error:
        # Another process may have done the same in between.
        if isinstance(error.__cause__, FailedPrecondition) and is_in_state():
            return False
        raise
    return True
