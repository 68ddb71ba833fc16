"""Entries of Cloud Scheduler that start one run, once."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from google.api_core.exceptions import AlreadyExists, NotFound
from google.cloud.scheduler_v1.types import CreateJobRequest, HttpMethod, HttpTarget, Job, OAuthToken

from cloudrun_jobs.backends.base import Request
from cloudrun_jobs.backends.cloudrun import clients, targets
from cloudrun_jobs.backends.cloudrun.errors import translate_errors
from cloudrun_jobs.deploy.cloudrun.schedules import CREATE, DELETE
from cloudrun_jobs.deploy.plan import RESERVATION, OwnershipLabel
from cloudrun_jobs.spec.reservation import MINUTE, Reservation

if TYPE_CHECKING:
    from cloudrun_jobs.backends.cloudrun import CloudRunBackend


def reserve(backend: CloudRunBackend, request: Request, reservation: Reservation, *, timeout: float) -> str:
    """Make the entry, and return its id; an empty one if its time had passed before it was there.

    May be repeated: the id is the run's, and an entry that is there already is the one.
    """
    job = _job(backend, request, reservation)
    client = clients.scheduler(backend.endpoint)
    with translate_errors(job.name, CREATE, endpoint=backend.endpoint):
        try:
            made = client.create_job(CreateJobRequest(parent=backend.scheduler_parent, job=job), timeout=timeout)
        except AlreadyExists:
            made = client.get_job(name=job.name, timeout=timeout)
    if made.schedule_time > reservation.at + MINUTE:
        unreserve(backend, _entry(request))
        return ""
    return _entry(request)


def unreserve(backend: CloudRunBackend, entry: str) -> None:
    """Delete the entry, if it is still there."""
    name = f"{backend.scheduler_parent}/jobs/{entry}"
    with translate_errors(name, DELETE, endpoint=backend.endpoint), suppress(NotFound):
        clients.scheduler(backend.endpoint).delete_job(name=name, timeout=backend.rpc_timeout)


def _job(backend: CloudRunBackend, request: Request, reservation: Reservation) -> Job:
    mark = OwnershipLabel(environment=backend.settings.environment, command=request.argv[0], kind=RESERVATION)
    settings = backend.settings
    target = HttpTarget(
        uri=targets.job_url(settings.project, settings.region, request.job),
        http_method=HttpMethod.POST,
        headers={"Content-Type": "application/json"},
        body=targets.encode_body(targets.job_body(request.argv, request.env)),
        oauth_token=OAuthToken(service_account_email=backend.reserving_account()),
    )
    return Job(
        name=f"{backend.scheduler_parent}/jobs/{_entry(request)}",
        description=str(mark),
        schedule=reservation.cron,
        time_zone=reservation.time_zone,
        http_target=target,
    )


def _entry(request: Request) -> str:
    return f"{request.job}-reserved-{request.run_id.replace('-', '')}"
