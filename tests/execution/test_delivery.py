"""A queue worker runs what the record determines, regardless of the deliveries and their number."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from threading import Barrier, Thread
from typing import Any
from uuid import uuid4

import pytest
from django.core.management.base import CommandError
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from cloudrun_jobs import environ
from cloudrun_jobs.exceptions import JobInterrupted
from cloudrun_jobs.execution import heartbeat
from cloudrun_jobs.execution.delivery import Report, Result, deliver, receive
from cloudrun_jobs.models import JobRun, Status, TaskRun, Trigger
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.registry import find_job
from tests.jobs.management.commands import echo, tasks
from tests.runs.conftest import in_every_database, store_records
from tests.waiting import wait_for

WORKER, OTHER = "celery@one/11", "celery@two/22"
SILENT = timedelta(minutes=3)


@pytest.fixture(params=["sqlite"], autouse=True)
def database(request: pytest.FixtureRequest, settings: Settings, django_db_blocker: Any) -> Iterator[str]:
    """Store the records in SQLite, except in tests for every database."""
    yield from store_records(request, settings, django_db_blocker)


def new_run(*argv: str, **values: Any) -> JobRun:
    """Return a run that was sent to a queue."""
    sent = {"status": Status.SENT, "sent_at": Now(), "trigger": Trigger.DELAY}
    fields = {**sent, "backend": "celery", "queue": "ingest", **values}
    run = JobRun(pk=uuid4(), command=argv[0], argv=argv, environment="test", **fields)
    if "execution" not in fields:
        run.execution = run.execution_name = str(run.pk)
    run.save(force_insert=True)
    return run


def work(run: JobRun, index: int | None = 0, process: str = WORKER) -> Report:
    """Deliver a task of the run to a worker."""
    run = JobRun.objects.get(pk=run.pk)
    job: Any = find_job(run.command)
    return deliver(job, receive(run, index, process))


def silence(run: JobRun, **values: Any) -> None:
    TaskRun.objects.filter(run=run.pk).update(heartbeat_at=Now() - SILENT, **values)


def began(run: JobRun, **values: Any) -> None:
    """Record that another worker has begun the first attempt."""
    JobRun.objects.filter(pk=run.pk).update(status=Status.RUNNING, started_at=Now())
    TaskRun.objects.create(run=run, index=0, worker=uuid4(), process=OTHER, **values)


def test_worker_resolves_and_masks_a_secret(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    """`run()` gets the value; the record and the error that the worker logs do not contain it."""
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "SECRETS": {"token": "hunter2!"}}
    monkeypatch.setattr(echo.Command, "secret_options", ("note",), raising=False)
    found: list[str] = []

    def run(self: Any, note: str, **options: Any) -> None:
        found.append(note)
        raise ValueError(f"bad {note}")

    monkeypatch.setattr(echo.Command, "run", run)
    recorded = new_run("echo", "--note=secret:token")
    report = work(recorded)

    recorded.refresh_from_db()
    assert found == ["hunter2!"]
    assert (str(report.error), recorded.error_message) == ("bad ***", "bad ***")
    assert "hunter2!" not in recorded.traceback


def test_worker_rejects_a_redacted_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with a redacted argument, recorded by an earlier version, fails."""
    monkeypatch.setattr(echo.Command, "secret_options", ("note",), raising=False)
    recorded = new_run("echo", "--note=[secret]")
    work(recorded)

    recorded.refresh_from_db()
    assert recorded.status == Status.FAILED
    assert "the value was not recorded" in recorded.error_message


def test_a_delivered_run_is_recorded() -> None:
    """The worker claims the run, runs it with the recorded arguments, and records the result."""
    run = new_run("echo", "--partner=7")

    report = work(run)

    run.refresh_from_db()
    task = run.tasks.get()
    assert report == Report(result=Result.ENDED)
    assert (run.status, run.result["partner"], task.process) == (Status.SUCCEEDED, 7, WORKER)
    assert run.execution == run.execution_name == str(run.pk)


def test_a_second_message_runs_nothing() -> None:
    """A message that arrives after the end of its run is dropped."""
    run = new_run("echo")
    work(run)
    first = JobRun.objects.values().get(pk=run.pk)

    assert work(run, process=OTHER) == Report(result=Result.ENDED)
    assert JobRun.objects.values().get(pk=run.pk) == first


def test_a_message_of_a_running_task_steps_aside() -> None:
    """A task whose heartbeat is recent is not started again."""
    run = new_run("echo")
    began(run)

    assert work(run) == Report(result=Result.RUNNING)
    assert run.tasks.get().process == OTHER


def test_a_silent_task_is_taken_over() -> None:
    """A task whose heartbeat has timed out gets another attempt, if the job has retries."""
    run = new_run("outcome", "text")
    began(run)
    silence(run)

    assert work(run).result == Result.ENDED

    run.refresh_from_db()
    assert (run.status, run.result, run.retried_count) == (Status.SUCCEEDED, "all done", 1)
    assert run.tasks.get().attempt == 1


def test_a_process_that_died_too_often_fails_the_run() -> None:
    """Without retries left, the run fails, and nothing is run."""
    run = new_run("echo")
    began(run)
    silence(run)

    assert work(run) == Report(result=Result.ENDED)

    run.refresh_from_db()
    assert (run.status, run.reason, run.result) == (Status.FAILED, "process_died", None)
    assert run.tasks.get().status == Status.FAILED


def test_a_run_that_has_ended_meanwhile_is_not_reopened() -> None:
    """Its last attempt may have failed between the arrival of a second message and its claim."""
    run = new_run("outcome", "text")
    began(run, attempt=1)
    silence(run)
    delivery = receive(JobRun.objects.get(pk=run.pk), 0, WORKER)
    JobRun.objects.update(status=Status.FAILED, finished_at=Now())
    TaskRun.objects.update(status=Status.FAILED, attempt=2, finished_at=Now())

    deliver(find_job("outcome"), delivery)  # type: ignore[arg-type]

    run.refresh_from_db()
    assert (run.status, run.result) == (Status.FAILED, None)


@pytest.mark.parametrize("argument", ["--gone=7", "--partner=x"])
def test_a_run_whose_arguments_are_rejected_fails(argument: str) -> None:
    """The command has changed since `delay()`: the run can never start, so it is not retried."""
    run = new_run("echo", argument)

    report = work(run)

    run.refresh_from_db()
    assert (report.result, type(report.error).__name__) == (Result.ENDED, "InvalidArguments")
    assert (run.status, run.reason, run.error_class) == (Status.FAILED, "error", "InvalidArguments")


def test_a_failure_is_retried_as_often_as_declared() -> None:
    """Each delivery after a failure is an attempt, up to max_retries + 1."""
    run = new_run("outcome", "command error")

    reports = [work(run) for _ in range(4)]

    assert [report.result for report in reports] == [Result.RETRY, Result.RETRY, Result.ENDED, Result.ENDED]
    assert [type(report.error) for report in reports] == [CommandError, CommandError, CommandError, type(None)]
    run.refresh_from_db()
    assert (run.status, run.reason, run.tasks.get().attempt) == (Status.FAILED, "error", 2)


def test_an_interruption_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job without retries that a shutdown interrupts is run again, and again."""
    run = new_run("echo")

    def interrupt(*args: Any, **options: Any) -> None:
        raise JobInterrupted("interrupted")

    with monkeypatch.context() as patch:
        patch.setattr(echo.Command, "run", interrupt)
        reports = [work(run) for _ in range(3)]

    assert [report.result for report in reports] == [Result.INTERRUPTED] * 3
    assert work(run).result == Result.ENDED

    run.refresh_from_db()
    task = run.tasks.get()
    assert (run.status, task.attempt, task.interruptions) == (Status.SUCCEEDED, 3, 3)


def test_a_timeout_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job without retries that exceeds its timeout has failed."""
    run = new_run("echo")

    def time_out(*args: Any, **options: Any) -> None:
        raise JobInterrupted("timeout")

    monkeypatch.setattr(echo.Command, "run", time_out)

    assert work(run).result == Result.ENDED
    run.refresh_from_db()
    assert (run.status, run.reason) == (Status.FAILED, "timeout")


def test_a_cancelled_run_is_not_started() -> None:
    """The record decides, even if the worker has forgotten that the task was revoked."""
    run = new_run("echo", status=Status.RUNNING, cancel_requested_at=Now(), started_at=Now())

    work(run)

    run.refresh_from_db()
    assert (run.status, run.result) == (Status.CANCELLED, None)


@pytest.mark.parametrize(
    ("seconds", "status"), [(60, Status.PENDING), (5, Status.SUCCEEDED), (-60, Status.SUCCEEDED)]
)
def test_a_reserved_run_is_not_started_early(seconds: int, status: str) -> None:
    """The clock of a worker may be wrong: that of the database counts."""
    due = timezone.now() + timedelta(seconds=seconds)
    run = new_run("echo", status=Status.PENDING, trigger=Trigger.RESERVE, scheduled_for=due, execution=None)

    work(run)

    run.refresh_from_db()
    assert run.status == status


def test_a_run_is_not_started_if_it_is_cancelled_after_its_record_was_read() -> None:
    """The worker does not rely on what it has read before it claims the run."""
    run = new_run("echo")
    delivery = receive(JobRun.objects.get(pk=run.pk), 0, WORKER)
    JobRun.objects.filter(pk=run.pk).update(cancel_requested_at=Now())

    deliver(find_job("echo"), delivery)  # type: ignore[arg-type]

    run.refresh_from_db()
    assert (run.status, run.result) == (Status.CANCELLED, None)


def test_a_new_run_is_read_once() -> None:
    """A run without a lock takes four more statements: it is claimed, begins, and ends in both tables."""
    run = new_run("walk", "0")
    delivery = receive(JobRun.objects.get(pk=run.pk), 0, WORKER)

    with CaptureQueriesContext(connections[JobRun.objects.db]) as queries:
        deliver(find_job("walk"), delivery)  # type: ignore[arg-type]

    assert [query["sql"].partition(" ")[0] for query in queries] == ["UPDATE", "INSERT", "UPDATE", "UPDATE"]


def test_each_task_is_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tasks share a run, and the last one calls `reduce()`."""
    run = new_run("tasks", task_count=3)

    for index in (2, 0, 1, 1):
        work(run, index)

    run.refresh_from_db()
    assert (run.status, run.result, run.succeeded_count) == (Status.SUCCEEDED, [0, 1, 2], 3)


def failing_reduce(monkeypatch: pytest.MonkeyPatch, *errors: BaseException) -> list[BaseException]:
    """Make `reduce()` raise these errors, one in each call."""
    left = list(errors)

    def reduce(self: Any, results: list[int]) -> list[int]:
        if left:
            raise left.pop(0)
        return results

    monkeypatch.setattr(tasks.Command, "reduce", reduce)
    return left


def test_reduce_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `reduce()` that fails is called again, without `run()`, by a delivery of the task that called it."""
    run = new_run("tasks", task_count=2)
    failing_reduce(monkeypatch, ValueError("no"))
    work(run, 0)

    assert [work(run, index).result for index in (1, 1, 0)] == [Result.RETRY, Result.ENDED, Result.ENDED]
    run.refresh_from_db()
    assert (run.status, run.result, run.tasks.get(index=1).attempt) == (Status.SUCCEEDED, [0, 1], 1)


def test_reduce_is_retried_as_often_as_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last failure ends the run."""
    run = new_run("tasks", task_count=2)
    left = failing_reduce(monkeypatch, *(ValueError("no") for _ in range(5)))
    work(run, 0)

    assert [work(run, 1).result for _ in range(3)] == [Result.RETRY, Result.ENDED, Result.ENDED]
    run.refresh_from_db()
    assert (run.status, run.reason, len(left)) == (Status.FAILED, "reduce", 3)


def test_an_interruption_of_reduce_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is repeated beyond the retries of the job."""
    run = new_run("tasks", task_count=2)
    failing_reduce(monkeypatch, *(JobInterrupted("interrupted") for _ in range(4)))
    work(run, 0)

    assert [work(run, 1).result for _ in range(4)] == [Result.INTERRUPTED] * 4
    assert work(run, 1).result == Result.ENDED
    run.refresh_from_db()
    assert (run.status, run.tasks.get(index=1).interruptions) == (Status.SUCCEEDED, 4)


@pytest.mark.parametrize(
    ("error", "result", "attempts"),
    [(ValueError("no"), Result.RETRY, 2), (JobInterrupted("interrupted"), Result.INTERRUPTED, 4)],
)
def test_a_separate_reduce_is_retried(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, result: Result, attempts: int
) -> None:
    """Its attempts are counted in the record of the run, without those that a shutdown ended."""
    run = new_run("tasks", task_count=1, status=Status.RUNNING, started_at=Now(), reduces=True)
    TaskRun.objects.create(run=run, index=0, worker=uuid4(), status=Status.SUCCEEDED, finished_at=Now(), result=0)
    left = failing_reduce(monkeypatch, *(error for _ in range(9)))

    reports = [work(run, None) for _ in range(4)]

    assert (reports[0].result, 9 - len(left)) == (result, attempts)
    run.refresh_from_db()
    assert run.status == (Status.FAILED if result == Result.RETRY else Status.RUNNING)


def test_a_separate_reduce_that_always_dies_ends_the_run() -> None:
    """Without a recorded failure, the number of attempts ends it."""
    values = {"reduces": True, "reduce_attempts": 2, "tasks_execution_name": "first"}
    run = new_run("tasks", status=Status.RUNNING, started_at=Now(), **values)
    JobRun.objects.filter(pk=run.pk).update(execution=f"{run.pk}.reduce")
    TaskRun.objects.create(run=run, index=0, worker=uuid4(), status=Status.SUCCEEDED, finished_at=Now(), result=0)

    assert work(run, None).result == Result.ENDED
    run.refresh_from_db()
    assert (run.status, run.reason) == (Status.FAILED, "process_died")


@in_every_database
@pytest.mark.parametrize("was_running", [False, True])
def test_one_of_two_deliveries_claims_the_task(database: str, *, was_running: bool) -> None:
    """Two workers that receive a task at the same time run it once."""
    run = new_run("outcome", "text")
    if was_running:
        began(run)
        silence(run)
    ready, reports = Barrier(2), []

    def receive_and_work(process: str) -> None:
        recorded = JobRun.objects.get(pk=run.pk)
        delivery = receive(recorded, 0, process)
        ready.wait(20)
        reports.append(deliver(find_job("outcome"), delivery))  # type: ignore[arg-type]
        connections.close_all()

    threads = [Thread(target=receive_and_work, args=(process,)) for process in (WORKER, OTHER)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    run.refresh_from_db()
    assert (run.status, run.tasks.get().attempt) == (Status.SUCCEEDED, int(was_running))
    assert [report.error for report in reports] == [None, None]


def test_a_superseded_attempt_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was stopped until another attempt took over ends its work, and records nothing."""
    run = new_run("echo")
    monkeypatch.setattr(heartbeat, "PROGRESS_INTERVAL", 0.05)
    monkeypatch.setattr(heartbeat, "HEARTBEAT_INTERVAL", 0.1)

    def lose(self: Any, *args: Any, **options: Any) -> None:
        TaskRun.objects.update(worker=uuid4(), attempt=1, process=OTHER)
        wait_for(self.check_lease)

    monkeypatch.setattr(echo.Command, "run", lose)

    assert isinstance(work(run).error, JobInterrupted)
    task = run.tasks.get()
    assert (task.status, task.process, task.exit_code) == (Status.RUNNING, OTHER, None)


def test_jobs_of_other_threads_are_not_nested(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker runs several tasks at once, and each has its own."""
    seen: list[tuple[str, Any]] = []
    inside, outside = Barrier(2), Barrier(2)

    def record(self: Any, *args: Any, **options: Any) -> None:
        inside.wait(20)
        task = environ.current_task()
        seen.append((self.run_id, task and task.run_id))
        outside.wait(20)

    monkeypatch.setattr(echo.Command, "run", record)
    monkeypatch.setattr(echo.Command, "parallelism", None, raising=False)
    runs = [new_run("echo", f"--partner={number}") for number in (1, 2)]

    def work_and_close(run: JobRun) -> None:
        work(run)
        connections.close_all()

    threads = [Thread(target=work_and_close, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert sorted(seen) == sorted((str(run.pk), str(run.pk)) for run in runs)
    assert JobRun.objects.count() == 2
