"""The handle that `delay()` returns, and the methods of a run's record."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ObjectDoesNotExist
from django.db import connections, transaction
from google.cloud import run_v2
from pytest_django import Settings

from cloudrun_jobs import JobCancelled, JobFailed, ResultUnavailable
from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.exceptions import CloudRunJobsError
from cloudrun_jobs.models import JobRun, Status, Trigger
from tests.backends.server import CloudRun
from tests.emulator.cloud import PLACE, Cloud, job
from tests.emulator.fixtures import cloudrun_emulator, cloudrun_emulator_options
from tests.jobs.management.commands import echo, outcome
from tests.locks.workers import database_settings
from tests.runs.conftest import EXECUTION, Container, request

__all__ = ["cloudrun_emulator", "cloudrun_emulator_options"]

ROOT = Path(__file__).resolve().parents[2]
NAME = f"{PLACE}/jobs/echo-production/executions/{EXECUTION}"


@pytest.fixture
def emulated(cloudrun_emulator: Emulator, settings: Settings, database: str) -> Iterator[Cloud]:
    """Run the jobs of this suite in processes, on the database under test."""
    options = {"endpoint": cloudrun_emulator.grpc, "runs_per_minute": 10_000}
    place = {"PROJECT": "acme", "REGION": "europe-west4"}
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "production", **place, "OPTIONS": options}
    variables = {
        "PYTHONPATH": str(ROOT),
        "DJANGO_SETTINGS_MODULE": "tests.runs.settings",
        "RUNS_DATABASE": json.dumps(database_settings(database)),
    }
    cloud = Cloud(cloudrun_emulator)
    cloud.create(job(sys.executable, "-m", "django", env=variables), "echo-production")
    cloud.create(job(sys.executable, "-m", "django", env=variables, task_count=3), "outcome-production")
    return cloud


def test_the_result_comes_from_the_container(emulated: Cloud) -> None:
    """result() returns what run() returned in another process."""
    operation = echo.Command().delay("日本語", partner=7)

    assert operation.result(timeout=60) == {"words": ["日本語"], "partner": 7, "note": None}
    run = operation.run
    assert (run.status, run.result) == (Status.SUCCEEDED, operation.result())
    assert (run.execution_name, run.tasks.get().exit_code) == (operation.execution_name, 0)


def test_the_result_of_a_container_with_another_database(emulated: Cloud, sqlite: str, tmp_path: Path) -> None:
    """The job works, and records what it returned where this process does not look."""
    elsewhere = Path(shutil.copyfile(connections[sqlite].settings_dict["NAME"], tmp_path / "elsewhere.sqlite3"))
    settings = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(elsewhere)}
    variables = {
        "PYTHONPATH": str(ROOT),
        "DJANGO_SETTINGS_MODULE": "tests.runs.settings",
        "RUNS_DATABASE": json.dumps(settings),
    }
    declared = job(sys.executable, "-m", "django", env=variables)
    declared.name = f"{PLACE}/jobs/echo-production"
    emulated.emulator.clients.jobs.update_job(job=declared).result()
    operation = echo.Command().delay(partner=7)

    with pytest.raises(ResultUnavailable, match=rf"{operation.execution_name}: the execution succeeded"):
        operation.result(timeout=60)
    assert (operation.run.status, operation.run.reason) == (Status.SUCCEEDED, "not_recorded")
    with closing(sqlite3.connect(elsewhere)) as there:
        query, run_id = "select result from cloudrun_jobs_jobrun where id = ?", operation.run_id.replace("-", "")
        [(recorded,)] = there.execute(query, [run_id])
    assert json.loads(recorded)["partner"] == 7


def test_the_results_of_tasks_are_a_list(emulated: Cloud) -> None:
    """result() of an execution with several tasks returns their results as a list."""
    operation = outcome.Command().delay("text")

    assert operation.result(timeout=60) == ["all done"] * 3
    assert (operation.run.task_count, operation.run.succeeded_count) == (3, 3)


def test_a_failure_in_the_container_is_raised(emulated: Cloud) -> None:
    """The error is recorded even if the job was deployed with fewer retries than it declares."""
    operation = outcome.Command().delay("exit")

    with pytest.raises(JobFailed):
        operation.result(timeout=120)
    run = operation.run
    assert (run.status, run.error_class) == (Status.FAILED, "SystemExit")
    assert set(run.tasks.values_list("exit_code", flat=True)) == {3}


def test_cancel_before_the_commit(cloud: CloudRun, database: str) -> None:
    """A run that is cancelled before the commit is not dispatched."""
    with transaction.atomic(using=database):
        operation = echo.Command().delay()

        assert operation.cancel()
        assert not operation.cancel()

    run = operation.run
    assert (run.status, run.reason) == (Status.CANCELLED, "cancelled")
    assert isinstance(operation.exception(), JobCancelled)
    assert cloud.requests == []
    assert run.finished_at is not None


def test_a_cancelled_run_is_not_dispatched(cloud: CloudRun) -> None:
    """A pending run that is cancelled is not dispatched, and its handle raises."""
    run = request(environment="production")

    assert run.cancel()
    assert isinstance(run.operation.exception(), JobCancelled)
    assert cloud.requests == []


def test_cancelling_a_run_cancels_its_execution(cloud: CloudRun) -> None:
    """The record notes the request; the status changes when the execution has ended."""
    run = echo.Command().delay().run

    assert run.cancel()
    assert cloud.cancelled == [run.execution_name]
    run.refresh_from_db()
    assert (run.status, run.cancel_requested_at is None) == (Status.SENT, False)


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED, Status.SKIPPED, Status.LOST])
def test_a_finished_run_is_not_cancelled(cloud: CloudRun, status: Status) -> None:
    """The record keeps its status, and Cloud Run is not called."""
    run = request(status=status, execution_name=NAME, execution=EXECUTION, environment="production")

    assert run.cancel() is False
    run.refresh_from_db()
    assert (run.status, run.cancel_requested_at) == (status, None)
    assert cloud.cancelled == []


def test_cancel_with_a_stale_object(cloud: CloudRun) -> None:
    """The row decides, not a stale object."""
    run = request(environment="production")
    JobRun.objects.update(status=Status.SUCCEEDED)

    assert run.cancel() is False
    assert JobRun.objects.get().status == Status.SUCCEEDED


def test_rerun_is_a_new_run(cloud: CloudRun) -> None:
    """rerun() starts a run with the same arguments and a new id."""
    run = echo.Command().delay("--odd", partner=7).run
    again = run.rerun().run

    assert again.pk != run.pk
    assert again.argv == run.argv == ["echo", "--partner=7", "--", "--odd"]
    assert [list(one.overrides.container_overrides[0].args) for one in cloud.requests] == [run.argv] * 2


def test_rerun_of_an_inline_run() -> None:
    """rerun() runs the job in this process again."""
    run = echo.Command().delay(partner=7).run

    assert run.rerun().result() == {"words": [], "partner": 7, "note": None}
    assert JobRun.objects.count() == 2


@pytest.mark.parametrize("argv", [None, 5, [[]]])
def test_rerun_needs_the_arguments(argv: Any) -> None:
    """The error for a run without recorded arguments says what to do."""
    run = request(argv=argv)

    with pytest.raises(CloudRunJobsError, match=r"its arguments were not recorded.*Call delay\(\)"):
        run.rerun()


def test_a_run_outlives_its_command(cloud: CloudRun) -> None:
    """The run of a deleted command can be followed, refreshed and cancelled."""
    values = {"execution": EXECUTION, "execution_name": NAME, "environment": "production"}
    run = request("gone", status=Status.SENT, **values)
    cloud.execution = run_v2.Execution(name=NAME, task_count=1)

    assert run.operation.execution_name == NAME
    assert run.operation.done() is False
    assert run.refresh().status == Status.SENT
    assert run.cancel() is True
    assert cloud.cancelled == [NAME]


def test_rerun_needs_the_command() -> None:
    """The error of rerun() names the command that no longer exists."""
    with pytest.raises(CloudRunJobsError, match="cannot be rerun, the command 'gone' no longer exists"):
        request("gone").rerun()


def test_rerun_needs_a_cloud_run_job() -> None:
    """The error of rerun() names a command whose base class has changed."""
    with pytest.raises(CloudRunJobsError, match="the command 'migrate' is no longer a Cloud Run job"):
        request("migrate").rerun()


def test_refresh_updates_a_running_run(cloud: CloudRun) -> None:
    """refresh() records the outcome that Cloud Run reports."""
    run = echo.Command().delay().run
    cloud.execution = run_v2.Execution(
        name=run.execution_name,
        task_count=1,
        failed_count=1,
        completion_time="2026-01-02T00:00:00Z",
        conditions=[
            run_v2.Condition(
                type_="Completed",
                state=run_v2.Condition.State.CONDITION_FAILED,
                message="The configured timeout was reached.",
            )
        ],
    )

    assert run.refresh().status == Status.FAILED
    assert (run.reason, run.failed_count) == ("timeout", 1)
    assert run.error_message == "The configured timeout was reached."


def test_refresh_of_a_finished_run_makes_no_call(cloud: CloudRun) -> None:
    """refresh() of a finished run reads the record only."""
    run = request(status=Status.SUCCEEDED, execution_name=NAME, environment="production")

    assert run.refresh().status == Status.SUCCEEDED
    assert cloud.polls == 0


def test_the_containers_error_is_kept(cloud: CloudRun, container: Container) -> None:
    """The service's message does not overwrite the error that the container recorded."""
    operation = outcome.Command().delay("error")
    run_id, execution = operation.run_id, operation.run.execution
    container.run("outcome", "error", run_id=run_id, execution=execution, attempt=2)
    cloud.execution.failed_count = 1
    cloud.execution.completion_time = "2026-01-02T00:00:00Z"

    assert isinstance(operation.exception(), JobFailed)
    assert (operation.run.error_class, operation.run.status) == ("ZeroDivisionError", Status.FAILED)


def test_a_handle_without_a_record(cloud: CloudRun) -> None:
    """The handle on a pruned run has an outcome, but no record."""
    operation = echo.Command().delay()
    JobRun.objects.all().delete()
    cloud.execution.succeeded_count = 1
    cloud.execution.completion_time = "2026-01-02T00:00:00Z"

    with pytest.raises(ObjectDoesNotExist):
        operation.run  # noqa: B018  (the property raises)
    assert isinstance(operation.exception(), ResultUnavailable)


@pytest.mark.parametrize(
    ("status", "raised"),
    [
        (Status.SUCCEEDED, None),
        (Status.SKIPPED, None),
        (Status.CANCELLED, JobCancelled),
        (Status.FAILED, JobFailed),
        (Status.LOST, JobFailed),
    ],
)
def test_the_handle_on_an_earlier_inline_run(status: Status, raised: type[Exception] | None) -> None:
    """The handle has the outcome of the record."""
    operation = request(status=status).operation

    assert operation.done()
    assert type(operation.exception()) is (raised or type(None))


def test_querysets() -> None:
    """Runs are selected by job and status."""
    done = request(status=Status.SUCCEEDED)
    failed = request("outcome", status=Status.FAILED)
    lost = request("outcome", status=Status.LOST)
    waiting = request("outcome")

    assert list(JobRun.objects.for_command(echo.Command)) == [done]
    assert list(JobRun.objects.for_command("echo")) == [done]
    assert list(JobRun.objects.running()) == [waiting]
    assert set(JobRun.objects.failed()) == {failed, lost}
    assert JobRun.objects.for_command("outcome").latest() == waiting


def test_concurrent_runs_of_the_same_work_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second run with the same arguments is skipped while the first is running."""
    second: list[Any] = []

    def run(self: echo.Command, **options: Any) -> None:
        monkeypatch.setattr(echo.Command, "run", lambda self, **options: pytest.fail("worked"))
        with ThreadPoolExecutor(1) as pool:
            second.append(pool.submit(delay).result())

    def delay() -> JobRun:
        try:
            return echo.Command().delay(partner=7).run
        finally:
            connections.close_all()  # This thread's.

    monkeypatch.setattr(echo.Command, "run", run)
    first = echo.Command().delay(partner=7).run

    assert (first.status, second[0].status, second[0].reason) == (Status.SUCCEEDED, Status.SKIPPED, "lock_held")
    assert first.trigger == second[0].trigger == Trigger.DELAY
