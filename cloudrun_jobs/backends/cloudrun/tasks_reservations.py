"""Tasks of Cloud Tasks that start one run, once."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from google.api_core.exceptions import AlreadyExists, NotFound
from google.cloud.tasks_v2.types import CreateTaskRequest, HttpMethod, HttpRequest, OAuthToken, Task

from cloudrun_jobs.backends.base import Request
from cloudrun_jobs.backends.cloudrun import clients, targets
from cloudrun_jobs.backends.cloudrun.errors import ApiMethod, translate_errors
from cloudrun_jobs.spec.reservation import Reservation

if TYPE_CHECKING:
    from cloudrun_jobs.backends.cloudrun import CloudRunBackend

CREATE = ApiMethod(
    permission="cloudtasks.tasks.create",
    role="roles/cloudtasks.enqueuer",
    also="roles/iam.serviceAccountUser on the service account that starts it",
    hints={NotFound: "Create the queue: gcloud tasks queues create NAME --location=REGION"},
)
DELETE = ApiMethod(permission="cloudtasks.tasks.delete", role="roles/cloudtasks.taskDeleter")
# Of one delivery: Cloud Run answers when the execution is made, not when it ends.
DEADLINE = timedelta(seconds=30)


def reserve(backend: CloudRunBackend, request: Request, reservation: Reservation, *, timeout: float) -> str:
    """Make the task, and return its name within the project. One whose time has passed runs at once.

    May be repeated: its id is the run's. A task that is there, or has been, is the one.
    """
    queue = f"queues/{backend.tasks_queue}"
    entry = f"{queue}/tasks/{request.run_id.replace('-', '')}"
    task = _task(backend, request, reservation, entry)
    message = CreateTaskRequest(parent=f"{backend.place}/{queue}", task=task)
    with translate_errors(task.name, CREATE, endpoint=backend.endpoint), suppress(AlreadyExists):
        clients.tasks(backend.endpoint).create_task(message, retry=None, timeout=timeout)
    return entry


def unreserve(backend: CloudRunBackend, entry: str) -> None:
    """Delete the task, if it is still there."""
    name = f"{backend.place}/{entry}"
    with translate_errors(name, DELETE, endpoint=backend.endpoint), suppress(NotFound):
        clients.tasks(backend.endpoint).delete_task(name=name, timeout=backend.rpc_timeout)


def _task(backend: CloudRunBackend, request: Request, reservation: Reservation, entry: str) -> Task:
    settings = backend.settings
    target = HttpRequest(
        url=targets.job_url(settings.project, settings.region, request.job),
        http_method=HttpMethod.POST,
        headers={"Content-Type": "application/json"},
        body=targets.encode_body(targets.job_body(request.argv, request.env)),
        oauth_token=OAuthToken(service_account_email=backend.reserving_account()),
    )
    return Task(
        name=f"{backend.place}/{entry}",
        http_request=target,
        schedule_time=reservation.at,
        dispatch_deadline=DEADLINE,
    )
