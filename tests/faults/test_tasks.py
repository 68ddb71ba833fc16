"""Reservations in Cloud Tasks: exact to the second, once, and within 30 days."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from django.db.models.functions import Now
from google.cloud import tasks_v2
from pytest_django import Settings

from cloudrun_jobs import backends
from cloudrun_jobs.exceptions import AccessDenied, InvalidArguments, InvalidSettings, ServiceError
from cloudrun_jobs.models import JobRun, Status, Trigger
from tests.faults.cloud_tasks import QUEUE, CloudTasks, serve
from tests.faults.conftest import OPTIONS, Scene
from tests.faults.test_reservations import reserve
from tests.jobs.management.commands import echo

pytestmark = pytest.mark.faults

HOUR = timedelta(hours=1)
TASKS = {"reservations": "cloud_tasks", "tasks_queue": "reserved"}


@pytest.fixture
def tasks(scene: Scene, settings: Settings) -> Iterator[CloudTasks]:
    """Serve Cloud Tasks to the test, to callers and to containers."""
    with serve(scene.emulator) as server:
        options = {**OPTIONS, **TASKS, "endpoint": server.endpoint}
        settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "OPTIONS": options}
        given = json.loads(scene.environment["CRASH_SETTINGS"])
        scene.environment["CRASH_SETTINGS"] = json.dumps({**given, "endpoint": server.endpoint, "options": TASKS})
        yield server


def reserved() -> JobRun:
    """Reserve a run in this process."""
    return JobRun.objects.get(pk=echo.Command().reserve(HOUR).run_id)


def only_task(tasks: CloudTasks) -> tasks_v2.Task:
    [task] = tasks.tasks.values()
    return task


def test_a_task_starts_the_run(scene: Scene, tasks: CloudTasks) -> None:
    """The task calls Cloud Run with the run's id and arguments, as the service account."""
    scene.deploy()
    run = reserve(scene)
    task = only_task(tasks)

    variables = {"CLOUDRUN_JOBS_RUN_ID": str(run.pk), "CLOUDRUN_JOBS_RESERVED_FOR": run.scheduled_for.isoformat()}
    [override] = json.loads(task.http_request.body)["overrides"]["containerOverrides"]
    assert task.name == f"{QUEUE}/tasks/{run.pk.hex}"
    assert run.schedule == f"queues/reserved/tasks/{run.pk.hex}"
    assert task.schedule_time == run.scheduled_for
    assert task.dispatch_deadline == timedelta(seconds=30)
    assert task.http_request.url == (
        "https://run.googleapis.com/v2/projects/acme/locations/europe-west4/jobs/work-production:run"
    )
    assert task.http_request.http_method == tasks_v2.HttpMethod.POST
    assert task.http_request.headers == {"Content-Type": "application/json"}
    assert task.http_request.oauth_token.service_account_email == "app-jobs@acme.iam.gserviceaccount.com"
    assert override["args"] == run.argv
    assert {variable["name"]: variable["value"] for variable in override["env"]} == variables


def test_a_task_is_due_to_the_second(scene: Scene, tasks: CloudTasks) -> None:
    """The due time of a task is not rounded."""
    at = datetime.now(UTC).replace(second=7) + HOUR
    run = reserve(scene, f"datetime.fromisoformat({at.isoformat()!r})")

    assert (run.scheduled_for, only_task(tasks).schedule_time) == (at, at)


def test_a_delivered_task_does_the_run(scene: Scene, tasks: CloudTasks) -> None:
    """The work is done once, and the task is deleted."""
    scene.deploy()
    run = reserve(scene)
    tasks.fire(only_task(tasks).name)
    scene.over()
    run.refresh_from_db()

    assert (run.status, run.trigger, run.schedule) == (Status.SUCCEEDED, Trigger.RESERVE, None)
    assert (len(scene.journal()), tasks.tasks) == (1, {})


def test_a_task_delivered_twice_runs_once(scene: Scene, tasks: CloudTasks) -> None:
    """The second execution of a task is superseded."""
    scene.deploy()
    reserve(scene)
    task = only_task(tasks)
    tasks.fire(task.name)
    scene.over()
    tasks.tasks[task.name] = task
    tasks.fire(task.name)
    scene.over()

    assert (len(scene.executions()), len(scene.journal()), scene.statuses()) == (2, 1, [Status.SUCCEEDED])


def test_a_cancelled_reservation_is_deleted(scene: Scene, tasks: CloudTasks) -> None:
    """cancel() deletes the task."""
    run = reserved()

    assert run.cancel()
    assert (JobRun.objects.get().status, tasks.tasks) == (Status.CANCELLED, {})


def test_a_deleted_task_can_be_cancelled(scene: Scene, tasks: CloudTasks) -> None:
    """cancel() succeeds if the task has been deleted before."""
    run = reserved()
    tasks.tasks.clear()

    assert run.cancel()
    assert (JobRun.objects.get().schedule, tasks.calls[-1]) == (None, "DeleteTask")


def test_a_lost_reply_makes_one_task(scene: Scene, tasks: CloudTasks) -> None:
    """The task is named after the run, so a repeated request creates no other."""
    tasks.errors_after.append((grpc.StatusCode.UNAVAILABLE, "gone"))
    run = reserve(scene)

    assert tasks.calls == ["CreateTask", "CreateTask"]
    assert only_task(tasks).name.endswith(run.schedule)


def test_a_missing_permission_is_reported(scene: Scene, tasks: CloudTasks) -> None:
    """The error names the permission and the role, and the run fails."""
    tasks.errors.append((grpc.StatusCode.PERMISSION_DENIED, "no"))
    with pytest.raises(AccessDenied, match=r"cloudtasks\.tasks\.create \(roles/cloudtasks\.enqueuer\)"):
        echo.Command().reserve(HOUR)

    assert (scene.statuses(), tasks.tasks) == ([Status.FAILED], {})


def test_a_missing_queue_is_reported(scene: Scene, tasks: CloudTasks, settings: Settings) -> None:
    """The error says how to create the queue."""
    settings.CLOUDRUN_JOBS["OPTIONS"]["tasks_queue"] = "other"

    with pytest.raises(ServiceError, match="gcloud tasks queues create"):
        echo.Command().reserve(HOUR)


def test_task_beyond_thirty_days_is_refused(scene: Scene, tasks: CloudTasks) -> None:
    """A time beyond the limit of Cloud Tasks raises, and leaves no record."""
    echo.Command().reserve(timedelta(days=30))
    with pytest.raises(
        InvalidArguments, match=r"expected a time within 30 days.*Cloud Tasks keeps a task no longer"
    ):
        echo.Command().reserve(timedelta(days=30, seconds=2))

    assert (scene.statuses(), len(tasks.tasks)) == ([Status.PENDING], 1)


def test_a_missing_reservation_is_made(scene: Scene, tasks: CloudTasks) -> None:
    """The reconciler creates the missing task, due at the same second."""
    run = reserve(scene, "timedelta(minutes=10, seconds=7)")
    tasks.tasks.clear()
    tasks._taken.clear()
    JobRun.objects.update(schedule=None)

    assert scene.reconcile() == {"reserved": 1}
    assert only_task(tasks).schedule_time == run.scheduled_for


def test_a_reservation_that_never_started_is_lost(scene: Scene, tasks: CloudTasks) -> None:
    """A day after its time the run is marked as lost, and its task deleted."""
    reserve(scene)
    JobRun.objects.update(scheduled_for=Now() - timedelta(hours=25))
    scene.reconcile()

    assert (scene.statuses(), tasks.tasks) == ([Status.LOST], {})


def test_reservations_of_the_other_service_can_be_cancelled(
    scene: Scene, tasks: CloudTasks, settings: Settings
) -> None:
    """A reservation is deleted from the service that has it, whatever is configured now."""
    task_run = reserved()
    settings.CLOUDRUN_JOBS["OPTIONS"]["reservations"] = "cloud_scheduler"
    scheduler_run = reserved()
    settings.CLOUDRUN_JOBS["OPTIONS"]["reservations"] = "cloud_tasks"
    parent = {"parent": "projects/acme/locations/europe-west4"}
    scheduler_jobs = list(scene.emulator.clients.scheduler.list_jobs(parent))

    assert len(scheduler_jobs) == 1
    assert scheduler_run.cancel()
    settings.CLOUDRUN_JOBS["OPTIONS"]["reservations"] = "cloud_scheduler"
    assert task_run.cancel()
    assert (tasks.tasks, list(scene.emulator.clients.scheduler.list_jobs(parent))) == ({}, [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reservations": "cloud_task"}, "expected 'cloud_scheduler' or 'cloud_tasks', got 'cloud_task'"),
        ({"reservations": "cloud_tasks"}, "'tasks_queue'\\]: required for Cloud Tasks, not set"),
        ({"tasks_queue": "a/b"}, "expected the name of a queue: letters, digits and hyphens, got 'a/b'"),
    ],
)
def test_invalid_options_are_refused(settings: Settings, options: dict[str, Any], message: str) -> None:
    """The error names the option and the expected value."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "production", "PROJECT": "acme", "REGION": "europe-west4"}
    settings.CLOUDRUN_JOBS["OPTIONS"] = options

    with pytest.raises(InvalidSettings, match=message):
        backends.current()


def test_a_missing_client_is_reported(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra to install, before anything is recorded."""
    options = {**TASKS, "service_account": "app-jobs@acme.iam.gserviceaccount.com"}
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "production", "PROJECT": "acme", "REGION": "europe-west4"}
    settings.CLOUDRUN_JOBS["OPTIONS"] = options
    monkeypatch.setattr("cloudrun_jobs.backends.cloudrun.find_spec", lambda name: None)

    with pytest.raises(InvalidSettings, match=r'pip install "django-cloudrun-jobs\[tasks\]"'):
        echo.Command().reserve(HOUR)


def test_inline_reservations_have_the_same_limit(settings: Settings) -> None:
    """The inline backend refuses the times that Cloud Tasks would refuse."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test", "OPTIONS": TASKS}

    with pytest.raises(InvalidArguments, match="within 30 days"):
        echo.Command().reserve(timedelta(days=31))
