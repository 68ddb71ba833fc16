"""Reservations in Cloud Tasks: a task for each, which starts one run, once."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from google.api_core.exceptions import AlreadyExists, NotFound
from google.cloud.tasks_v2.types import HttpRequest, Task

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
# Of one attempt to deliver: Cloud Run answers when the execution exists, not when it ends.
DISPATCH_DEADLINE = timedelta(seconds=30)


def reserve(backend: CloudRunBackend, request: Request, reservation: Reservation, *, timeout: float) -> str:
    """Create the task and return its name within the project. A task whose time has passed runs at once.

    Idempotent: the id is the run's, and Cloud Tasks refuses the id of an existing or former task.
    """
    queue = f"queues/{backend.tasks_queue}"
    key = f"{queue}/tasks/{request.run_id.replace('-', '')}"
    url, target = targets.run_target(backend, request)
    task = Task(
        name=f"{backend.parent}/{key}",
        http_request=HttpRequest(url=url, **target),
        schedule_time=reservation.at,
        dispatch_deadline=DISPATCH_DEADLINE,
    )
    client = clients.tasks(backend.endpoint)
    with translate_errors(task.name, CREATE, endpoint=backend.endpoint), suppress(AlreadyExists):
        client.create_task(parent=f"{backend.parent}/{queue}", task=task, retry=None, timeout=timeout)
    return key


def unreserve(backend: CloudRunBackend, key: str) -> None:
    """Delete the task if it exists."""
    name = f"{backend.parent}/{key}"
    with translate_errors(name, DELETE, endpoint=backend.endpoint), suppress(NotFound):
        clients.tasks(backend.endpoint).delete_task(name=name, timeout=backend.rpc_timeout)
