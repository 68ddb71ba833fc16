"""Start reserved runs with Scheduler jobs of Cloud Scheduler, or with tasks of Cloud Tasks.

Each reservation is one resource, whose id contains the run's, so that creating it is idempotent.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from google.api_core.exceptions import AlreadyExists, NotFound

from cloudrun_jobs import cron
from cloudrun_jobs.backends.base import Request
from cloudrun_jobs.backends.cloudrun import clients, targets
from cloudrun_jobs.backends.cloudrun.errors import ApiMethod, translate_errors
from cloudrun_jobs.spec.ownership import RESERVATION, OwnershipLabel
from cloudrun_jobs.spec.reservation import CLOUD_TASKS, MINUTE, Reservation

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
CREATE_TASK = ApiMethod(
    permission="cloudtasks.tasks.create",
    role="roles/cloudtasks.enqueuer",
    also="roles/iam.serviceAccountUser on the service account that starts it",
    hints={NotFound: "Create the queue: gcloud tasks queues create NAME --location=REGION"},
)
DELETE_TASK = ApiMethod(permission="cloudtasks.tasks.delete", role="roles/cloudtasks.taskDeleter")
# Of one attempt to deliver a task: Cloud Run answers when the execution exists, not when it ends.
DISPATCH_DEADLINE = timedelta(seconds=30)


def reserve(backend: CloudRunBackend, request: Request, reservation: Reservation, *, timeout: float) -> str:
    """Create the reservation and return its key, or "" if its time has passed; a task is due at once then."""
    url = targets.job_url(backend.settings.project, backend.settings.region, request.job)
    target = {
        "http_method": "POST",
        "headers": {"Content-Type": targets.CONTENT_TYPE},
        "body": targets.encode_body(targets.job_body(request.container_args, request.env, request.overrides)),
        "oauth_token": {"service_account_email": backend.reservation_account()},
    }
    if backend.reservations == CLOUD_TASKS:
        return _create_task(backend, request, reservation, {"url": url, **target}, timeout)
    return _create_scheduler_job(backend, request, reservation, {"uri": url, **target}, timeout)


def unreserve(backend: CloudRunBackend, key: str, *, timeout: float) -> None:
    """Delete the reservation if it exists, without Google's retries. Only the key of a task contains slashes."""
    is_task = "/" in key
    name = f"{backend.parent}/{key}" if is_task else f"{backend.scheduler_parent}/jobs/{key}"
    with translate_errors(name, DELETE_TASK if is_task else DELETE, endpoint=backend.endpoint), suppress(NotFound):
        if is_task:
            clients.tasks(backend.server).delete_task(name=name, retry=None, timeout=timeout)
        else:
            clients.scheduler(backend.server).delete_job(name=name, retry=None, timeout=timeout)


def _create_task(
    backend: CloudRunBackend, request: Request, reservation: Reservation, target: dict[str, Any], timeout: float
) -> str:
    from google.cloud.tasks_v2.types import Task

    queue = f"queues/{backend.tasks_queue}"
    key = f"{queue}/tasks/{request.run_id.replace('-', '')}"
    task = Task(
        name=f"{backend.parent}/{key}",
        http_request=target,
        schedule_time=reservation.at,
        dispatch_deadline=DISPATCH_DEADLINE,
    )
    client = clients.tasks(backend.server)
    # Cloud Tasks also rejects the id of a task that it has run.
    with translate_errors(task.name, CREATE_TASK, endpoint=backend.endpoint), suppress(AlreadyExists):
        client.create_task(parent=f"{backend.parent}/{queue}", task=task, retry=None, timeout=timeout)
    return key


def _create_scheduler_job(
    backend: CloudRunBackend, request: Request, reservation: Reservation, target: dict[str, Any], timeout: float
) -> str:
    from google.cloud.scheduler_v1.types import Job

    key = f"{request.job}-reserved-{request.run_id.replace('-', '')}"
    label = OwnershipLabel(environment=backend.settings.environment, command=request.argv[0], kind=RESERVATION)
    job = Job(
        name=f"{backend.scheduler_parent}/jobs/{key}",
        description=str(label),
        schedule=reservation.cron,
        time_zone=reservation.time_zone,
        http_target=target,
    )
    client = clients.scheduler(backend.server)
    with translate_errors(job.name, CREATE, endpoint=backend.endpoint):
        try:
            created = client.create_job(parent=backend.scheduler_parent, job=job, retry=None, timeout=timeout)
        except AlreadyExists:
            created = client.get_job(name=job.name, retry=None, timeout=timeout)
    # Without a due time in the answer, it is next year's if the reserved one has come: a schedule has no year.
    due = created.schedule_time or cron.next_time(reservation.cron, reservation.time_zone, datetime.now(UTC))
    if due is None or due > reservation.at + MINUTE:
        unreserve(backend, key, timeout=timeout)
        return ""
    return key
