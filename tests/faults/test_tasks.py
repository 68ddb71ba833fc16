"""Reservations that are tasks of Cloud Tasks: to the second, once, and within 30 days."""

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

HOUR = timedelta(hours=1)
TASKS = {"reservations": "cloud_tasks", "tasks_queue": "reserved"}


@pytest.fixture
def tasks(scene: Scene, settings: Settings) -> Iterator[CloudTasks]:
    """Serve Cloud Tasks, to the test, to senders and to containers."""
    with serve(scene.emulator) as server:
        options = {**OPTIONS, **TASKS, "endpoint": server.endpoint}
        settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "OPTIONS": options}
        told = json.loads(scene.environment["CRASH_SETTINGS"])
        scene.environment["CRASH_SETTINGS"] = json.dumps({**told, "endpoint": server.endpoint, "options": TASKS})
        yield server


def reserved() -> JobRun:
    """Reserve a run in this process, which knows only the jobs of the suite."""
    return JobRun.objects.get(pk=echo.Command().reserve(HOUR).run_id)


def only(tasks: CloudTasks) -> tasks_v2.Task:
    [task] = tasks.tasks.values()
    return task


def test_a_task_is_all_that_the_run_is(scene: Scene, tasks: CloudTasks) -> None:
    """It bears the run's id, and calls Cloud Run with the arguments, as the account that may."""
    scene.deploy()
    run = reserve(scene)
    task = only(tasks)

    told = {"CLOUDRUN_JOBS_RUN_ID": str(run.pk), "CLOUDRUN_JOBS_RESERVED_FOR": run.scheduled_for.isoformat()}
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
    assert task.http_request.oauth_token.service_account_email == "jobs@acme.iam.gserviceaccount.com"
    assert override["args"] == run.argv
    assert {variable["name"]: variable["value"] for variable in override["env"]} == told


def test_it_is_due_to_the_second(scene: Scene, tasks: CloudTasks) -> None:
    """Nothing waits for the minute."""
    at = datetime.now(UTC).replace(second=7) + HOUR
    run = reserve(scene, f"datetime.fromisoformat({at.isoformat()!r})")

    assert (run.scheduled_for, only(tasks).schedule_time) == (at, at)


def test_a_fired_task_is_the_run(scene: Scene, tasks: CloudTasks) -> None:
    """The work is done once, and nothing is left."""
    scene.deploy()
    run = reserve(scene)
    tasks.fire(only(tasks).name)
    scene.over()
    run.refresh_from_db()

    assert (run.status, run.trigger, run.schedule) == (Status.SUCCEEDED, Trigger.RESERVE, None)
    assert (len(scene.journal()), tasks.tasks) == (1, {})


def test_a_task_delivered_twice_is_one_run(scene: Scene, tasks: CloudTasks) -> None:
    """Cloud Tasks delivers at least once; the second execution has nothing to do."""
    scene.deploy()
    reserve(scene)
    task = only(tasks)
    tasks.fire(task.name)
    scene.over()
    tasks.tasks[task.name] = task
    tasks.fire(task.name)
    scene.over()

    assert (len(scene.executions()), len(scene.journal()), scene.statuses()) == (2, 1, [Status.SUCCEEDED])


def test_a_cancelled_reservation_is_deleted(scene: Scene, tasks: CloudTasks) -> None:
    """Nothing is left that could start it."""
    run = reserved()

    assert run.cancel()
    assert (JobRun.objects.get().status, tasks.tasks) == (Status.CANCELLED, {})


def test_a_task_that_is_gone_needs_no_deletion(scene: Scene, tasks: CloudTasks) -> None:
    """Somebody else deleted it: the run is cancelled all the same."""
    run = reserved()
    tasks.tasks.clear()

    assert run.cancel()
    assert (JobRun.objects.get().schedule, tasks.calls[-1]) == (None, "DeleteTask")


def test_an_answer_that_is_lost_makes_one_task(scene: Scene, tasks: CloudTasks) -> None:
    """The task's name is the run's: asked for again, it is there already, which is success."""
    tasks.errors_after.append((grpc.StatusCode.UNAVAILABLE, "gone"))
    run = reserve(scene)

    assert tasks.calls == ["CreateTask", "CreateTask"]
    assert only(tasks).name.endswith(run.schedule)


def test_refused(scene: Scene, tasks: CloudTasks) -> None:
    """The error names the permission and the role, and the run is failed."""
    tasks.errors.append((grpc.StatusCode.PERMISSION_DENIED, "no"))
    with pytest.raises(AccessDenied, match=r"cloudtasks\.tasks\.create \(roles/cloudtasks\.enqueuer\)"):
        echo.Command().reserve(HOUR)

    assert (scene.statuses(), tasks.tasks) == ([Status.FAILED], {})


def test_without_the_queue(scene: Scene, tasks: CloudTasks, settings: Settings) -> None:
    """The error tells how to create it."""
    settings.CLOUDRUN_JOBS["OPTIONS"]["tasks_queue"] = "other"

    with pytest.raises(ServiceError, match="gcloud tasks queues create"):
        echo.Command().reserve(HOUR)


def test_thirty_days(scene: Scene, tasks: CloudTasks) -> None:
    """Cloud Tasks takes nothing beyond; what is refused leaves no record."""
    echo.Command().reserve(timedelta(days=30))
    with pytest.raises(
        InvalidArguments, match=r"expected a time within 30 days.*Cloud Tasks keeps a task no longer"
    ):
        echo.Command().reserve(timedelta(days=30, seconds=2))

    assert (scene.statuses(), len(tasks.tasks)) == ([Status.PENDING], 1)


def test_a_reservation_that_was_not_made_is(scene: Scene, tasks: CloudTasks) -> None:
    """Who looks after the runs makes the task, for the very second."""
    run = reserve(scene, "timedelta(minutes=10, seconds=7)")
    tasks.tasks.clear()
    tasks._taken.clear()
    JobRun.objects.update(schedule=None)

    assert scene.look_after() == {"reserved": 1}
    assert only(tasks).schedule_time == run.scheduled_for


def test_a_reservation_that_never_started_is_lost(scene: Scene, tasks: CloudTasks) -> None:
    """A day after its time it is given up, and its task deleted."""
    reserve(scene)
    JobRun.objects.update(scheduled_for=Now() - timedelta(hours=25))
    scene.look_after()

    assert (scene.statuses(), tasks.tasks) == ([Status.LOST], {})


def test_who_changes_the_service_can_cancel_what_waits(
    scene: Scene, tasks: CloudTasks, settings: Settings
) -> None:
    """An entry is deleted where it was made, whatever is configured now."""
    task_run = reserved()
    settings.CLOUDRUN_JOBS["OPTIONS"]["reservations"] = "cloud_scheduler"
    entry_run = reserved()
    settings.CLOUDRUN_JOBS["OPTIONS"]["reservations"] = "cloud_tasks"
    parent = {"parent": "projects/acme/locations/europe-west4"}
    entries = list(scene.emulator.clients.scheduler.list_jobs(parent))

    assert len(entries) == 1
    assert entry_run.cancel()
    settings.CLOUDRUN_JOBS["OPTIONS"]["reservations"] = "cloud_scheduler"
    assert task_run.cancel()
    assert (tasks.tasks, list(scene.emulator.clients.scheduler.list_jobs(parent))) == ({}, [])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reservations": "cloud_task"}, "expected 'cloud_scheduler' or 'cloud_tasks', got 'cloud_task'"),
        ({"reservations": "cloud_tasks"}, "'tasks_queue'\\]: required for Cloud Tasks, not set"),
        ({"tasks_queue": "a/b"}, "expected the name of a queue: letters, digits and hyphens, got 'a/b'"),
    ],
)
def test_options(settings: Settings, options: dict[str, Any], words: str) -> None:
    """They are checked with the other settings."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "production", "PROJECT": "acme", "REGION": "europe-west4"}
    settings.CLOUDRUN_JOBS["OPTIONS"] = options

    with pytest.raises(InvalidSettings, match=words):
        backends.current()


def test_the_client_is_an_extra(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has not installed it is told before anything is recorded."""
    options = {**TASKS, "service_account": "jobs@acme.iam.gserviceaccount.com"}
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "production", "PROJECT": "acme", "REGION": "europe-west4"}
    settings.CLOUDRUN_JOBS["OPTIONS"] = options
    monkeypatch.setattr("cloudrun_jobs.backends.cloudrun.find_spec", lambda name: None)

    with pytest.raises(InvalidSettings, match=r'pip install "django-cloudrun-jobs\[tasks\]"'):
        echo.Command().reserve(HOUR)


def test_here_the_same_is_refused(settings: Settings) -> None:
    """A job that runs in this process refuses what the cloud would."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test", "OPTIONS": TASKS}

    with pytest.raises(InvalidArguments, match="within 30 days"):
        echo.Command().reserve(timedelta(days=31))
