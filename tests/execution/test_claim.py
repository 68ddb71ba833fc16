"""Claims: of all processes that could work on a run, one does."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest
from django.core.management import call_command
from django.db import connections

from cloudrun_jobs.exceptions import JobCancelled
from cloudrun_jobs.execution import attempt, locking, runner
from cloudrun_jobs.execution.attempt import Attempt
from cloudrun_jobs.execution.claim import AlreadyClaimed
from cloudrun_jobs.models import JobRun, Status, TaskRun, Trigger
from cloudrun_jobs.signals import execution_superseded
from cloudrun_jobs.spec.tick import ScheduleTick
from tests.jobs.management.commands import echo
from tests.runs.conftest import EXECUTION, OTHER, Container, begin, request, some_id

TICK = "echo-nightly|0 3 * * *|Asia/Tokyo"


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record each call of run()."""
    times: list[str] = []
    monkeypatch.setattr(echo.Command, "run", lambda self, **options: times.append("worked"))
    return times


@pytest.fixture
def duplicates() -> Iterator[list[JobRun]]:
    """Record the run of each superseded execution."""
    runs: list[JobRun] = []

    def receiver(run: JobRun, **kwargs: object) -> None:
        runs.append(run)

    execution_superseded.connect(receiver)
    yield runs
    execution_superseded.disconnect(receiver)


def test_the_first_execution_claims_the_run(
    container: Container, worked: list[str], duplicates: list[JobRun]
) -> None:
    """The second execution of a run exits with status 0, and the record names the first."""
    run = request()

    assert container.run("echo", run_id=str(run.pk)) == 0
    assert container.run("echo", run_id=str(run.pk), execution=OTHER) == 0
    assert (worked, duplicates) == (["worked"], [run])
    run.refresh_from_db()
    assert (run.status, run.execution, run.task_count) == (Status.SUCCEEDED, EXECUTION, 1)
    assert run.created_at <= run.started_at <= run.finished_at


def test_a_running_run_is_not_claimed() -> None:
    """A second execution is superseded while the first one is running."""
    run = request()

    with begin(run) as first, begin(run, execution=OTHER) as second:
        assert isinstance(first, Attempt)
        assert isinstance(second, AlreadyClaimed)

    run.refresh_from_db()
    assert (run.status, run.execution) == (Status.SUCCEEDED, EXECUTION)


def test_one_of_many_concurrent_claims_succeeds(database: str) -> None:
    """Of six claims at once, one succeeds."""
    run, barrier = request(), Barrier(6)

    def claim(number: int) -> type:
        barrier.wait(30)
        try:
            with begin(run, execution=f"echo-test-{number}") as claimed:
                return type(claimed)
        finally:
            connections[database].close()  # This thread's.

    with ThreadPoolExecutor(6) as pool:
        claimed = Counter(pool.map(claim, range(6)))

    assert claimed == {Attempt: 1, AlreadyClaimed: 5}
    assert TaskRun.objects.get().status == Status.SUCCEEDED


def test_a_cancelled_run_does_not_start(container: Container, worked: list[str]) -> None:
    """The container of a run that was cancelled earlier does no work."""
    run = request(status=Status.CANCELLED)

    assert container.run("echo", run_id=str(run.pk)) == 0
    assert worked == []


def cancelled_request(command: str = "echo", **values: Any) -> JobRun:
    return request(command, cancel_requested_at=datetime.now(UTC), **values)


@pytest.mark.parametrize("status", [Status.SENT, Status.RUNNING, Status.LOST])
def test_a_run_whose_cancellation_was_requested_does_no_work(
    container: Container, worked: list[str], status: Status, caplog: pytest.LogCaptureFixture
) -> None:
    """A container that starts after cancel() exits with status 0, and the run is cancelled."""
    run = cancelled_request(status=status, execution=EXECUTION)

    assert container.run("echo", run_id=str(run.pk)) == 0
    run.refresh_from_db()
    assert (worked, run.status, run.reason) == ([], Status.CANCELLED, "cancelled")
    assert (run.tasks.get().status, run.cancelled_count) == (Status.CANCELLED, 1)
    assert run.finished_at is not None
    assert f"Job echo-test does no work: its run {run.pk} is cancelled" in caplog.text


def test_a_cancelled_run_is_not_retried(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry that begins after cancel() does no work, and ends the run as cancelled."""
    assert container.run("outcome", "error") == 1
    JobRun.objects.update(cancel_requested_at=datetime.now(UTC))

    assert container.run("outcome", "text", attempt=1) == 0
    run = JobRun.objects.get()
    assert (run.status, run.reason, run.result) == (Status.CANCELLED, "cancelled", None)
    assert container.run("outcome", "text", attempt=2) == 0
    assert JobRun.objects.get().status == Status.CANCELLED


def test_no_further_task_of_a_cancelled_run_works(container: Container, worked: list[str]) -> None:
    """The tasks that start after cancel() do no work; the one that had ended is counted."""
    assert container.run("echo", count=3) == 0
    JobRun.objects.update(cancel_requested_at=datetime.now(UTC))
    for index in (1, 2):
        assert container.run("echo", count=3, index=index) == 0

    run = JobRun.objects.get()
    assert (worked, run.status, run.succeeded_count, run.cancelled_count) == (["worked"], Status.CANCELLED, 1, 2)


def test_a_cancelled_run_takes_no_lock(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container of a cancelled run does not wait for the locks of another one."""
    run = cancelled_request(status=Status.SENT, execution=EXECUTION)
    monkeypatch.setattr(locking, "hold_locks", None)

    assert container.run("echo", run_id=str(run.pk)) == 0
    run.refresh_from_db()
    assert run.status == Status.CANCELLED


def test_the_caller_of_a_cancelled_run_gets_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """delay() in this process raises if its run is cancelled while it starts."""
    insert = attempt.database.insert

    def insert_and_cancel(row: Any, **options: Any) -> None:
        insert(row, **options)
        if isinstance(row, JobRun):
            JobRun.objects.update(cancel_requested_at=datetime.now(UTC))

    monkeypatch.setattr(attempt.database, "insert", insert_and_cancel)

    with pytest.raises(JobCancelled, match="cancelled before it started"):
        echo.Command().delay()
    assert JobRun.objects.get().status == Status.CANCELLED


def test_every_task_of_the_execution_works() -> None:
    """The tasks of one execution share its run, and each does its part."""
    run = request()
    for index in range(3):
        with begin(run, index=index, count=3) as attempt:
            assert isinstance(attempt, Attempt)

    assert list(run.tasks.order_by("index").values_list("index", "status")) == [
        (index, Status.SUCCEEDED) for index in range(3)
    ]
    run.refresh_from_db()
    assert (run.status, run.task_count, run.succeeded_count) == (Status.SUCCEEDED, 3, 3)


def test_a_retry_continues_the_run() -> None:
    """The next attempt of a failed task takes over its row."""
    run = request("outcome")
    with suppress(ZeroDivisionError), begin(run, command="outcome"):
        raise ZeroDivisionError
    with begin(run, command="outcome", attempt=1) as again:
        assert isinstance(again, Attempt)

    task = TaskRun.objects.get()
    assert (task.attempt, task.status, task.exit_code) == (1, Status.SUCCEEDED, 0)


def test_a_retry_continues_an_unrequested_run() -> None:
    """An execution that was started elsewhere has one run, however many attempts it makes."""
    with suppress(ZeroDivisionError), begin(None, command="outcome"):
        raise ZeroDivisionError
    with begin(None, command="outcome", attempt=1) as again:
        assert isinstance(again, Attempt)

    assert JobRun.objects.get().status == Status.SUCCEEDED


def test_a_successful_task_is_not_repeated() -> None:
    """A later attempt of a successful task does not work."""
    run = request()
    with begin(run):
        pass
    with begin(run, attempt=1) as again:
        assert isinstance(again, AlreadyClaimed)


def test_a_successful_task_is_not_repeated_while_others_run() -> None:
    """The same holds while other tasks of the run are running."""
    run = request()
    with begin(run, count=2):
        pass
    with begin(run, count=2, attempt=1) as again:
        assert isinstance(again, AlreadyClaimed)

    assert JobRun.objects.get().status == Status.RUNNING


def test_an_earlier_attempt_does_not_take_over() -> None:
    """An attempt that starts after a later one does not work."""
    run = request("outcome")
    with begin(run, command="outcome", attempt=1), begin(run, command="outcome", attempt=0) as late:
        assert isinstance(late, AlreadyClaimed)


def test_a_superseded_attempt_writes_nothing() -> None:
    """The outcome of an attempt that a later one took over is ignored."""
    run = request("outcome")
    with suppress(ZeroDivisionError), begin(run, command="outcome"):
        with begin(run, command="outcome", attempt=1) as later:
            assert isinstance(later, Attempt)
            later.succeed("of the later")
        raise ZeroDivisionError

    run.refresh_from_db()
    assert (run.status, run.result, run.error_class) == (Status.SUCCEEDED, "of the later", "")
    task = run.tasks.get()
    assert (task.attempt, task.status, task.result) == (1, Status.SUCCEEDED, "of the later")


@pytest.mark.parametrize("run_id", ["1", "not a uuid", "{7d0a6f1e-5f2f-4b3c-9a51-0c6f3f0f8f11}", "7" * 32])
def test_an_invalid_run_id_is_refused(
    container: Container, worked: list[str], run_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The container prints one line and exits with status 2 without work."""
    assert container.run("echo", run_id=run_id) == 2
    assert (worked, JobRun.objects.count()) == ([], 0)
    assert "CLOUDRUN_JOBS_RUN_ID: expected the UUID of a run" in capsys.readouterr().err


def test_a_missing_record_is_recreated(
    container: Container, worked: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A run whose record was deleted does its work under the same id, with a warning."""
    run_id = some_id()
    with caplog.at_level(logging.WARNING, "cloudrun_jobs"):
        assert container.run("echo", "--partner=7", run_id=run_id) == 0

    run = JobRun.objects.get()
    assert (str(run.pk), run.status, run.trigger) == (run_id, Status.SUCCEEDED, Trigger.DELAY)
    assert (run.argv, run.execution, worked) == (["echo", "--partner=7"], EXECUTION, ["worked"])
    assert [record.__dict__["action"] for record in caplog.records] == ["run_recreated"]


def test_a_run_of_another_command_is_not_claimed(container: Container, worked: list[str]) -> None:
    """A job in a subprocess of another job inherits its variables, and gets a run of its own."""
    run = request("outcome")

    assert container.run("echo", run_id=str(run.pk)) == 0
    run.refresh_from_db()
    assert (run.status, worked) == (Status.PENDING, ["worked"])
    own = JobRun.objects.exclude(pk=run.pk).get()
    assert (own.command, own.status, own.execution) == ("echo", Status.SUCCEEDED, None)


FOREIGN = {"environment": "staging"}


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("execution", [None, EXECUTION, OTHER])
def test_a_run_of_another_environment_is_refused(
    container: Container,
    worked: list[str],
    status: Status,
    execution: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The container prints one line and exits with status 2; the run of the other environment stays as it is."""
    run = request(**FOREIGN, status=status, execution=execution, cancel_requested_at=datetime.now(UTC))
    before = JobRun.objects.values().get()

    assert container.run("echo", run_id=str(run.pk)) == 2
    assert (worked, JobRun.objects.values().get(), TaskRun.objects.count()) == ([], before, 0)
    assert f"expected a run of the environment 'test', got {run.pk} of 'staging'" in capsys.readouterr().err


def test_a_reservation_of_another_environment_is_refused(
    container: Container, worked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reservation that is over, and of another environment, is neither skipped nor released."""
    monkeypatch.setenv("CLOUDRUN_JOBS_RESERVED_FOR", "2026-01-01T00:00:00+00:00")
    monkeypatch.setattr(runner, "_release_reservation", None)
    run = request(**FOREIGN, trigger=Trigger.RESERVE, schedule="echo-staging-1")
    before = JobRun.objects.values().get()

    assert container.run("echo", run_id=str(run.pk)) == 2
    assert (worked, JobRun.objects.values().get()) == ([], before)


def test_a_reservation_of_another_command_is_left_alone(
    container: Container, worked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job in a subprocess of a reserved job that is over has a run of its own."""
    monkeypatch.setenv("CLOUDRUN_JOBS_RESERVED_FOR", "2026-01-01T00:00:00+00:00")
    run = request("outcome", trigger=Trigger.RESERVE, schedule="outcome-test-1")
    before = JobRun.objects.values().get()

    assert container.run("echo", run_id=str(run.pk)) == 0
    assert (worked, JobRun.objects.values().get(pk=run.pk)) == (["worked"], before)


@pytest.mark.parametrize("command", ["echo", "outcome"])
def test_an_execution_of_another_environment_is_left_alone(
    container: Container, worked: list[str], command: str
) -> None:
    """An execution that nothing requested does not join a run of another environment by the execution's name."""
    run = request(command, **FOREIGN, status=Status.RUNNING, execution=EXECUTION)
    before = JobRun.objects.values().get()

    assert container.run("echo") == 0
    assert (worked, JobRun.objects.values().get(pk=run.pk)) == (["worked"], before)
    own = JobRun.objects.exclude(pk=run.pk).get()
    assert (own.environment, own.status, own.execution) == ("test", Status.SUCCEEDED, None)


@pytest.mark.parametrize("other", [FOREIGN, {"command": "outcome"}])
def test_a_tick_is_claimed_within_one_environment(
    container: Container, worked: list[str], other: dict[str, str]
) -> None:
    """A tick that is a run of another environment or command is not used up."""
    assert container.run("echo", schedule=TICK) == 0
    JobRun.objects.update(**other)
    assert container.run("echo", schedule=TICK, execution=OTHER) == 0

    assert worked == ["worked", "worked"]
    assert len(set(JobRun.objects.values_list("schedule", "scheduled_for"))) == 1


def test_a_nested_job_has_its_own_run(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that another job calls in its process is not part of the execution."""
    monkeypatch.setattr(echo.Command, "run", lambda self, **options: call_command("outcome", "none"))

    assert container.run("echo") == 0
    runs = JobRun.objects.order_by("command")
    assert list(runs.values_list("command", "status", "execution")) == [
        ("echo", Status.SUCCEEDED, EXECUTION),
        ("outcome", Status.SUCCEEDED, None),
    ]


def test_a_recursive_job_has_a_run_for_each_call(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two runs of the same command, the outer one has the execution."""

    def run(self: echo.Command, *args: object, partner: int | None, **options: object) -> int:
        return partner or call_command("echo", "--partner=7") or 1

    monkeypatch.setattr(echo.Command, "run", run)

    assert container.run("echo") == 0
    runs = JobRun.objects.order_by("created_at")
    assert list(runs.values_list("status", "execution", "result")) == [
        (Status.SUCCEEDED, EXECUTION, 1),
        (Status.SUCCEEDED, None, 7),
    ]


def test_a_manual_execution_has_one_run(container: Container) -> None:
    """An execution that is started in the console gets one record for all of its tasks."""
    assert container.run("echo", "--partner=7", "word", count=2) == 0
    assert container.run("echo", "--partner=7", "word", count=2, index=1) == 0

    run = JobRun.objects.get()
    assert (run.trigger, run.execution, run.task_count) == (Trigger.MANUAL, EXECUTION, 2)
    assert (run.argv, run.status) == (["echo", "--partner=7", "word"], Status.SUCCEEDED)
    assert UUID(str(run.pk)).version == 4


def test_a_tick_is_recorded_with_its_schedule(container: Container) -> None:
    """The record has the name of the Scheduler job and the due time."""
    assert container.run("echo", schedule=TICK) == 0

    run = JobRun.objects.get()
    assert (run.trigger, run.schedule, run.status) == (Trigger.SCHEDULE, "echo-nightly", Status.SUCCEEDED)
    assert run.scheduled_for is not None
    assert run.scheduled_for <= run.created_at


def test_a_tick_delivered_twice_runs_once(container: Container, worked: list[str]) -> None:
    """The second execution of a tick is skipped."""
    assert container.run("echo", schedule=TICK) == 0
    assert container.run("echo", schedule=TICK, execution=OTHER) == 0

    assert worked == ["worked"]
    skipped = JobRun.objects.get(execution=OTHER)
    assert (skipped.status, skipped.reason) == (Status.SKIPPED, "same_tick")
    assert skipped.finished_at is not None
    assert EXECUTION in skipped.error_message


@pytest.mark.parametrize("status", [Status.RUNNING, Status.SUCCEEDED, Status.SKIPPED])
def test_a_used_tick_says_how_to_run_the_job(
    container: Container, worked: list[str], caplog: pytest.LogCaptureFixture, status: Status
) -> None:
    """`gcloud scheduler jobs run` of a used tick does no work: the log and the record name the ways that do."""
    assert container.run("echo", schedule=TICK) == 0
    JobRun.objects.update(status=status)
    first = JobRun.objects.get()
    caplog.clear()
    assert container.run("echo", schedule=TICK, execution=OTHER) == 0

    hint = "call delay(), or `gcloud run jobs execute echo-test`"
    (record,) = caplog.records
    assert (record.__dict__["action"], record.levelname) == ("execution_superseded", "WARNING")
    assert f"{first.scheduled_for:%F %T} UTC is the run {first.pk}, which is {status} in" in record.getMessage()
    assert hint in record.getMessage()
    assert hint in JobRun.objects.get(execution=OTHER).error_message

    assert container.run("echo", execution="echo-test-third") == 0
    assert worked == ["worked", "worked"]


def test_other_superseded_executions_have_no_tick(container: Container, caplog: pytest.LogCaptureFixture) -> None:
    """A retry of a tick that succeeded, and a second execution of a requested run, get no such advice."""
    run = request()
    assert container.run("echo", schedule=TICK, execution=OTHER) == 0
    assert container.run("echo", schedule=TICK, execution=OTHER, attempt=1) == 0
    assert container.run("echo", run_id=str(run.pk)) == 0
    assert container.run("echo", run_id=str(run.pk), execution="echo-test-third") == 0

    superseded = [record.getMessage() for record in caplog.records if "superseded" in record.getMessage()]
    assert len(superseded) == 2
    assert "gcloud" not in caplog.text


@pytest.mark.parametrize("count", [1, 2])
def test_a_repeated_tick_is_decided_once(
    container: Container, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """An execution that works for a failed tick goes on, in all tasks and retries, if the first one resumes."""
    tick = TICK.replace("echo", "outcome")
    assert container.run("outcome", "error", schedule=tick, attempt=2) == 1
    tasks = {"schedule": tick, "execution": OTHER, "count": count}
    assert container.run("outcome", "error", **tasks) == 1
    JobRun.objects.filter(execution=EXECUTION).update(status=Status.RUNNING)

    for index in range(count):
        assert container.run("outcome", "text", **tasks, index=index, attempt=1) == 0
    run = JobRun.objects.get(execution=OTHER)
    assert (run.status, run.schedule, run.scheduled_for) == (Status.SUCCEEDED, "outcome-nightly", None)


@pytest.mark.parametrize("first", [Status.RUNNING, Status.FAILED])
def test_two_tasks_that_decide_about_a_tick_at_once_agree(
    container: Container, worked: list[str], monkeypatch: pytest.MonkeyPatch, first: Status
) -> None:
    """What one task of the execution has decided is followed by another one that was about to decide otherwise."""
    assert container.run("echo", schedule=TICK) == 0
    JobRun.objects.update(status=first)
    due = ScheduleTick.due

    def decided(tick: ScheduleTick, started: datetime) -> datetime | None:
        run = JobRun.objects.filter(execution=OTHER)
        run.update(**({"schedule": "echo-nightly"} if first == Status.RUNNING else {"status": Status.SKIPPED}))
        return due(tick, started)

    monkeypatch.setattr(ScheduleTick, "due", decided)
    assert container.run("echo", schedule=TICK, execution=OTHER, count=2) == 0

    works = first == Status.RUNNING
    assert len(worked) == 1 + works
    assert JobRun.objects.get(execution=OTHER).status == (Status.RUNNING if works else Status.SKIPPED)


def test_ticks_of_two_schedules_are_two_runs(container: Container, worked: list[str]) -> None:
    """Two Scheduler jobs that are due at the same time are two runs."""
    assert container.run("echo", schedule=TICK) == 0
    assert container.run("echo", schedule=TICK.replace("nightly", "daily"), execution=OTHER) == 0

    assert worked == ["worked", "worked"]


def test_a_failed_scheduled_attempt_is_retried(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry in the execution that has claimed the tick does the work."""
    tick = TICK.replace("echo", "outcome")

    assert container.run("outcome", "error", schedule=tick) == 1
    assert container.run("outcome", "none", schedule=tick, attempt=1) == 0
    assert JobRun.objects.get().status == Status.SUCCEEDED


def test_arguments_with_invalid_utf8_are_not_recorded(container: Container, worked: list[str]) -> None:
    """The job runs, although databases refuse the surrogates that stand for such bytes."""
    assert container.run("echo", "\udcff") == 0

    run = JobRun.objects.get()
    assert (run.status, run.argv, worked) == (Status.SUCCEEDED, None, ["worked"])


@pytest.mark.parametrize(
    "arguments",
    [["--note", "hunter2"], ["--note=hunter2"], ["--", "hunter2"], ["hunter2"], ["--note=hunter2", "key=value"]],
    ids=" ".join,
)
def test_secret_values_are_hidden(
    container: Container, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """The record that the container itself inserts hides the value in whatever form it was given."""
    monkeypatch.setattr(echo.Command, "secret_options", ("note", "words"), raising=False)
    container.run("echo", *arguments)
    run = JobRun.objects.get()

    assert "hunter2" not in str(run.argv)
    assert "[secret]" in str(run.argv)
