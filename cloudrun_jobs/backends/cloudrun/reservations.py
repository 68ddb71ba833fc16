"""Reservations in Cloud Scheduler: a Scheduler job for each, which starts one run, once."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from google.api_core.exceptions import AlreadyExists, NotFound
from google.cloud.scheduler_v1.types import HttpTarget, Job

from cloudrun_jobs.backends.base import Request
from cloudrun_jobs.backends.cloudrun import clients, targets
from cloudrun_jobs.backends.cloudrun.errors import ApiMethod, translate_errors
from cloudrun_jobs.spec.ownership import RESERVATION, OwnershipLabel
from cloudrun_jobs.spec.reservation import MINUTE, Reservation

if TYPE_CHECKING:
    from cloudrun_jobs.backends.cloudrun import CloudRunBackend

ADMIN, ACT_AS = "roles/cloudscheduler.admin", "roles/iam.serviceAccountUser on the Scheduler job's service account"
CREATE = ApiMethod(
    permission="cloudscheduler.jobs.create",
    role=ADMIN,
    also=ACT_AS,
    hints={AlreadyExists: "It was created since the Scheduler jobs were listed; run the sync again."},
)
DELETE = ApiMethod(permission="cloudscheduler.jobs.delete", role=ADMIN)


def reserve(backend: CloudRunBackend, request: Request, reservation: Reservation, *, timeout: float) -> str:
    """Create the Scheduler job and return its id, or "" if the time passed before it existed.

    Idempotent: the id contains the run's.
    """
    job = _job(backend, request, reservation)
    client = clients.scheduler(backend.endpoint)
    with translate_errors(job.name, CREATE, endpoint=backend.endpoint):
        try:
            created = client.create_job(parent=backend.scheduler_parent, job=job, timeout=timeout)
        except AlreadyExists:
            created = client.get_job(name=job.name, timeout=timeout)
    if created.schedule_time > reservation.at + MINUTE:
        unreserve(backend, _job_id(request))
        return ""
    return _job_id(request)


def unreserve(backend: CloudRunBackend, key: str) -> None:
    """Delete the Scheduler job if it exists."""
    name = f"{backend.scheduler_parent}/jobs/{key}"
    with translate_errors(name, DELETE, endpoint=backend.endpoint), suppress(NotFound):
        clients.scheduler(backend.endpoint).delete_job(name=name, timeout=backend.rpc_timeout)


def _job(backend: CloudRunBackend, request: Request, reservation: Reservation) -> Job:
    label = OwnershipLabel(environment=backend.settings.environment, command=request.argv[0], kind=RESERVATION)
    url, target = targets.run_target(backend, request)
    return Job(
        name=f"{backend.scheduler_parent}/jobs/{_job_id(request)}",
        description=str(label),
        schedule=reservation.cron,
        time_zone=reservation.time_zone,
        http_target=HttpTarget(uri=url, **target),
    )


def _job_id(request: Request) -> str:
    return f"{request.job}-reserved-{request.run_id.replace('-', '')}"
