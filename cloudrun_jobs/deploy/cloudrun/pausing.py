"""Pause and resume Scheduler jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.api_core.exceptions import FailedPrecondition, NotFound
from google.cloud.scheduler_v1.types import Job

from cloudrun_jobs.backends.cloudrun import clients
from cloudrun_jobs.backends.cloudrun.errors import ApiMethod, translate_errors
from cloudrun_jobs.backends.cloudrun.quota import RETRY_WHEN_EXHAUSTED
from cloudrun_jobs.backends.cloudrun.reservations import ADMIN

if TYPE_CHECKING:
    from cloudrun_jobs.backends.cloudrun import CloudRunBackend

HINTS: dict[type[Exception], str] = {
    NotFound: "Create it with `manage.py sync_cloudrun_schedules`.",
    FailedPrecondition: "Its last update failed, or Cloud Scheduler disabled it: run the sync again.",
}
GET = ApiMethod(permission="cloudscheduler.jobs.get", role="roles/cloudscheduler.viewer", hints=HINTS)
PAUSE = ApiMethod(permission="cloudscheduler.jobs.pause", role=ADMIN, hints=HINTS)
RESUME = ApiMethod(permission="cloudscheduler.jobs.enable", role=ADMIN, hints=HINTS)


def set_state(backend: CloudRunBackend, scheduler_job: str, *, paused: bool) -> bool:
    """Pause or resume the Scheduler job; return False if it is so already. Raises one of the `ServiceError`s."""
    client, name = clients.scheduler(backend.server), f"{backend.scheduler_parent}/jobs/{scheduler_job}"
    wanted = Job.State.PAUSED if paused else Job.State.ENABLED
    with translate_errors(name, GET, endpoint=backend.endpoint):
        found = client.get_job(name=name, retry=RETRY_WHEN_EXHAUSTED, timeout=backend.rpc_timeout)
    if found.state == wanted:
        return False
    change = client.pause_job if paused else client.resume_job
    with translate_errors(name, PAUSE if paused else RESUME, endpoint=backend.endpoint):
        change(name=name, retry=RETRY_WHEN_EXHAUSTED, timeout=backend.rpc_timeout)
    return True
