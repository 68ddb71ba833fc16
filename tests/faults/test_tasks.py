"""Reservations in Cloud Tasks: exact to the second, once, and within 30 days."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from google.cloud import tasks_v2
from pytest_django import Settings

from cloudrun_jobs import backends
from cloudrun_jobs.exceptions import AccessDenied, InvalidArguments, InvalidSettings, ServiceError
from cloudrun_jobs.models import JobRun, Status, Trigger
from tests.emulator.cloud import PLACE, eventually
from tests.faults.conftest import Scene
from tests.faults.test_reservations import advance, reserve
from tests.jobs.management.commands import echo

pytestmark = pytest.mark.faults

HOUR = timedelta(hours=1)
TASKS = {"reservations": "cloud_tasks", "tasks_queue": "reserved"}
QUEUE = f"{PLACE}/queues/reserved"
CREATE_TASK = "CloudTasks.CreateTask"


@pytest.fixture
def client(scene: Scene, settings: Settings) -> tasks_v2.CloudTasksClient:
    """Create the queue, and reserve in it, in this process and in others."""
    client = scene.emulator.clients.cloud_tasks
    client.create_queue(parent=PLACE, queue={"name": QUEUE})
    settings.CLOUDRUN_JOBS["OPTIONS"].update(TASKS)
    given = json.loads(scene.environment["CRASH_SETTINGS"])
    scene.environment["CRASH_SETTINGS"] = json.dumps({**given, "options": TASKS})
    return client


def reserved() -> JobRun:
    """Reserve a run in this process."""
    return JobRun.objects.get(pk=echo.Command().reserve(HOUR).run_id)


def tasks(client: tasks_v2.CloudTasksClient, queue: str = QUEUE) -> list[tasks_v2.Task]:
    request = tasks_v2.ListTasksRequest(parent=queue, response_view=tasks_v2.Task.View.FULL)
    return list(client.list_tasks(request))


def test_a_task_starts_the_run(scene: Scene, client: tasks_v2.CloudTasksClient) -> None:
    """The task calls Cloud Run with the run's id and arguments, as the service account."""
    scene.deploy()
    run = reserve(scene)
    [task] = tasks(client)

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
    assert task.http_request.headers["Content-Type"] == "application/json"
    assert task.http_request.oauth_token.service_account_email == "app-jobs@acme.iam.gserviceaccount.com"
    assert override["args"] == run.argv
    assert {variable["name"]: variable["value"] for variable in override["env"]} == variables


def test_a_task_is_due_to_the_second(scene: Scene, client: tasks_v2.CloudTasksClient) -> None:
    """The due time of a task is not rounded."""
    at = datetime.now(UTC).replace(second=7) + HOUR
    run = reserve(scene, f"datetime.fromisoformat({at.isoformat()!r})")

    assert (run.scheduled_for, [task.schedule_time for task in tasks(client)]) == (at, [at])


def test_a_delivered_task_does_the_run(scene: Scene, client: tasks_v2.CloudTasksClient) -> None:
    """The work is done once, at its time, and the task is deleted."""
    scene.deploy()
    scene.emulator.clock.freeze()
    run = reserve(scene)
    advance(scene, minutes=9)
    assert scene.executions() == []

    advance(scene, minutes=2)
    run.refresh_from_db()
    assert (run.status, run.trigger, run.schedule) == (Status.SUCCEEDED, Trigger.RESERVE, None)
    assert (len(scene.journal()), tasks(client)) == (1, [])


def test_a_task_delivered_twice_runs_once(scene: Scene, client: tasks_v2.CloudTasksClient) -> None:
    """The second execution of a task is superseded."""
    scene.deploy()
    scene.emulator.clock.freeze()
    reserve(scene)
    scene.emulator.faults.double_delivery()
    advance(scene, minutes=11)
    eventually(lambda: len(scene.executions()) == 2)
    scene.over()

    assert (len(scene.executions()), len(scene.journal()), scene.statuses()) == (2, 1, [Status.SUCCEEDED])


def test_a_cancelled_reservation_is_deleted(scene: Scene, client: tasks_v2.CloudTasksClient) -> None:
    """cancel() deletes the task."""
    run = reserved()

    assert run.cancel()
    assert (JobRun.objects.get().status, tasks(client)) == (Status.CANCELLED, [])


def test_a_deleted_task_can_be_cancelled(scene: Scene, client: tasks_v2.CloudTasksClient) -> None:
    """cancel() succeeds if the task has been deleted before."""
    run = reserved()
    client.delete_task(name=f"{PLACE}/{run.schedule}")

    assert run.cancel()
    assert (JobRun.objects.get().schedule, scene.emulator.calls["CloudTasks.DeleteTask"]) == (None, 2)


def test_a_lost_reply_makes_one_task(scene: Scene, client: tasks_v2.CloudTasksClient) -> None:
    """The task is named after the run, so a repeated request creates no other."""
    scene.emulator.faults.fail_after(CREATE_TASK)
    run = reserve(scene)

    assert scene.emulator.calls[CREATE_TASK] == 2
    assert [task.name for task in tasks(client)] == [f"{PLACE}/{run.schedule}"]


def test_a_missing_permission_is_reported(scene: Scene, client: tasks_v2.CloudTasksClient) -> None:
    """The error names the permission and the role, and the run fails."""
    scene.emulator.faults.fail(CREATE_TASK, "PERMISSION_DENIED", "no")
    with pytest.raises(AccessDenied, match=r"cloudtasks\.tasks\.create \(roles/cloudtasks\.enqueuer\)"):
        echo.Command().reserve(HOUR)

    assert (scene.statuses(), tasks(client)) == ([Status.FAILED], [])


def test_a_missing_queue_is_reported(scene: Scene, client: tasks_v2.CloudTasksClient, settings: Settings) -> None:
    """The error says how to create the queue."""
    settings.CLOUDRUN_JOBS["OPTIONS"]["tasks_queue"] = "other"

    with pytest.raises(ServiceError, match="gcloud tasks queues create"):
        echo.Command().reserve(HOUR)


def test_task_beyond_thirty_days_is_refused(scene: Scene, client: tasks_v2.CloudTasksClient) -> None:
    """A time beyond the limit of Cloud Tasks raises, and leaves no record."""
    echo.Command().reserve(timedelta(days=30))
    with pytest.raises(
        InvalidArguments, match=r"expected a time within 30 days.*Cloud Tasks keeps a task no longer"
    ):
        echo.Command().reserve(timedelta(days=30, seconds=2))

    assert (scene.statuses(), len(tasks(client))) == ([Status.PENDING], 1)


def test_a_missing_reservation_is_made(
    scene: Scene, client: tasks_v2.CloudTasksClient, settings: Settings
) -> None:
    """The reconciler creates the missing task, due at the same second, in the queue that is configured now."""
    spare = client.create_queue(parent=PLACE, queue={"name": f"{PLACE}/queues/spare"}).name
    run = reserve(scene, "timedelta(minutes=10, seconds=7)")
    client.purge_queue(name=QUEUE)
    JobRun.objects.update(schedule=None)
    settings.CLOUDRUN_JOBS["OPTIONS"]["tasks_queue"] = "spare"

    assert scene.reconcile() == {"reserved": 1}
    assert [task.schedule_time for task in tasks(client, spare)] == [run.scheduled_for]


def test_a_reservation_that_never_started_is_lost(scene: Scene, client: tasks_v2.CloudTasksClient) -> None:
    """A day after its time the run is marked as lost, and its task deleted."""
    reserve(scene)
    JobRun.objects.update(scheduled_for=Now() - timedelta(hours=25))
    scene.reconcile()

    assert (scene.statuses(), tasks(client)) == ([Status.LOST], [])


def test_reservations_of_the_other_service_can_be_cancelled(
    scene: Scene, client: tasks_v2.CloudTasksClient, settings: Settings
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
    assert (tasks(client), list(scene.emulator.clients.scheduler.list_jobs(parent))) == ([], [])


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
