"""`job_name` adopts a job that was created in the console; a sync keeps undeclared fields."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from google.cloud import run_v2

from cloudrun_jobs.emulator import Emulator
from tests.deploy.commands import PLACE, Sync
from tests.jobs.management.commands import echo

NAME = "refresh-token-console"
TEMPLATE: dict[str, Any] = {
    "task_count": 3,
    "template": {
        "max_retries": 3,
        "timeout": timedelta(hours=2),
        "containers": [
            {
                "name": "main-1",
                "image": "gcr.io/acme/app",
                "command": ["python"],
                "args": ["manage.py", "echo"],
                "env": [{"name": "OWN", "value": "1"}],
                "resources": {"limits": {"cpu": "2", "memory": "1Gi"}},
            }
        ],
        "volumes": [{"name": "scratch", "empty_dir": {}}],
    },
}


@pytest.fixture
def console_job(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> run_v2.Job:
    monkeypatch.setattr(echo.Command, "job_name", NAME, raising=False)
    monkeypatch.setattr(echo.Command, "entrypoint", ["python"], raising=False)
    job = run_v2.Job(template=TEMPLATE, labels={"team": "billing"})
    created: run_v2.Job = emulator.clients.jobs.create_job(parent=PLACE, job_id=NAME, job=job).result()
    return created


def adopted(emulator: Emulator) -> run_v2.Job:
    return emulator.clients.jobs.get_job(name=f"{PLACE}/jobs/{NAME}")


def test_adopted_job_keeps_what_the_class_does_not_declare(
    sync_jobs: Sync, emulator: Emulator, console_job: run_v2.Job
) -> None:
    """Only the ownership label and the variables of the settings are new; the second sync changes nothing."""
    sync_jobs()
    job = adopted(emulator)
    before, after = console_job.template, job.template
    added = {variable.name for variable in after.template.containers[0].env} - {"OWN"}
    assert added == {"CLOUDRUN_JOBS_ENVIRONMENT", "CLOUDRUN_JOBS_PROJECT", "CLOUDRUN_JOBS_REGION"}
    after.template.containers[0].env = before.template.containers[0].env
    assert (after, dict(job.labels)) == (before, {"team": "billing"})
    assert [*emulator.clients.jobs.list_jobs(parent=PLACE)] == [adopted(emulator)]

    assert "Nothing to change" in sync_jobs().messages


def test_declared_fields_are_written_to_the_adopted_job(
    sync_jobs: Sync, emulator: Emulator, console_job: run_v2.Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adopted job gets the image of `--image`."""
    declared = {"max_retries": 0, "timeout": 600, "entrypoint": ["python", "-u"], "args": {"partner": 7}}
    for name, value in declared.items():
        monkeypatch.setattr(echo.Command, name, value, raising=False)
    sync_jobs("--image", "gcr.io/acme/app:2")
    task = adopted(emulator).template.template
    container = task.containers[0]
    assert (task.max_retries, task.timeout) == (0, timedelta(minutes=10))
    assert list(container.command) == ["python", "-u"]
    assert list(container.args) == ["manage.py", "echo", "--partner=7"]
    assert (container.image, container.name) == ("gcr.io/acme/app:2", "main-1")
    assert adopted(emulator).template.task_count == 3


def test_new_job_gets_the_declared_name_and_all_defaults(
    sync_jobs: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a job to adopt, the sync creates one."""
    monkeypatch.setattr(echo.Command, "job_name", {"production": NAME}, raising=False)
    sync_jobs("--image", "app")
    task = adopted(emulator).template.template
    assert (task.max_retries, task.timeout) == (0, timedelta(minutes=10))
    assert list(task.containers[0].command) == ["python", "manage.py"]
    assert "Nothing to change" in sync_jobs().messages


def test_name_of_another_environment_is_not_used(
    sync_jobs: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an environment that the dictionary does not contain, the job has the default name."""
    monkeypatch.setattr(echo.Command, "job_name", {"staging": NAME}, raising=False)
    sync_jobs("--image", "app")
    assert [job.name for job in emulator.clients.jobs.list_jobs(parent=PLACE)] == [f"{PLACE}/jobs/echo-production"]


def test_job_of_another_environment_is_not_adopted(
    sync_jobs: Sync, emulator: Emulator, console_job: run_v2.Job, options: dict[str, Any], settings: Any
) -> None:
    """The same name in all environments of a project is rejected."""
    sync_jobs()
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "ENVIRONMENT": "staging"}
    assert "belongs to the environment 'production'" in sync_jobs().messages


def test_schedule_starts_the_adopted_job_with_the_script(
    sync_schedules: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The body has `manage.py` first, and is read back without drift."""
    declared = {"job_name": NAME, "entrypoint": ["python"], "schedule": "0 * * * *"}
    for name, value in declared.items():
        monkeypatch.setattr(echo.Command, name, value, raising=False)
    sync_schedules("--command", "echo")
    (job,) = emulator.clients.scheduler.list_jobs(parent=PLACE)
    assert job.http_target.uri.endswith(f"/jobs/{NAME}:run")
    assert b'"args": ["manage.py", "echo"]' in job.http_target.body
    assert "Nothing to change" in sync_schedules("--command", "echo").messages


def test_entrypoint_that_cannot_run_the_arguments_is_rejected(
    sync_jobs: Sync, emulator: Emulator, console_job: run_v2.Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job keeps its entrypoint, so each run would fail: the message says what to declare."""
    monkeypatch.delattr(echo.Command, "entrypoint")
    synced = sync_jobs()

    assert synced.status == 2
    assert "keeps its entrypoint, python, so no run would start." in synced.messages
    assert "Declare entrypoint = ['python'] in its class." in synced.messages
    assert adopted(emulator) == console_job
