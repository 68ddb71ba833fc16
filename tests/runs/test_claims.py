"""Whose run it is: of all the processes that could do it, one does."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier
from uuid import UUID

import pytest
from django.core.management import call_command
from django.db import connections

from cloudrun_jobs.execution.attempt import Attempt
from cloudrun_jobs.execution.claim import AlreadyClaimed
from cloudrun_jobs.models import JobRun, Status, TaskRun, Trigger
from cloudrun_jobs.signals import execution_superseded
from tests.jobs.management.commands import echo
from tests.runs.conftest import EXECUTION, OTHER, Container, begin, request, some_id

TICK = "echo-nightly|0 3 * * *|Asia/Tokyo"


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note each time that the job does its work."""
    times: list[str] = []
    monkeypatch.setattr(echo.Command, "run", lambda self, **options: times.append("worked"))
    return times


@pytest.fixture
def duplicates() -> Iterator[list[JobRun]]:
    """Note each time that a process steps aside, and for which run."""
    runs: list[JobRun] = []

    def receiver(run: JobRun, **kwargs: object) -> None:
        runs.append(run)

    execution_superseded.connect(receiver)
    yield runs
    execution_superseded.disconnect(receiver)


def test_the_first_execution_does_the_run(
    container: Container, worked: list[str], duplicates: list[JobRun]
) -> None:
    """Of two executions for one run the second steps aside, with status 0, and the record is the first's."""
    run = request()

    assert container.run("echo", run_id=str(run.pk)) == 0
    assert container.run("echo", run_id=str(run.pk), execution=OTHER) == 0
    assert (worked, duplicates) == (["worked"], [run])
    run.refresh_from_db()
    assert (run.status, run.execution, run.task_count) == (Status.SUCCEEDED, EXECUTION, 1)
    assert run.created_at <= run.started_at <= run.finished_at


def test_a_second_execution_steps_aside_while_the_first_works() -> None:
    """Not only after its end."""
    run = request()

    with begin(run) as first, begin(run, execution=OTHER) as second:
        assert isinstance(first, Attempt)
        assert isinstance(second, AlreadyClaimed)

    run.refresh_from_db()
    assert (run.status, run.execution) == (Status.SUCCEEDED, EXECUTION)


def test_of_many_that_claim_at_once_one_works(database: str) -> None:
    """The database decides, in one statement, whoever comes first."""
    run, together = request(), Barrier(6)

    def claim(number: int) -> type:
        together.wait(30)
        try:
            with begin(run, execution=f"echo-test-{number}") as claimed:
                return type(claimed)
        finally:
            connections[database].close()  # This thread's.

    with ThreadPoolExecutor(6) as pool:
        claimed = Counter(pool.map(claim, range(6)))

    assert claimed == {Attempt: 1, AlreadyClaimed: 5}
    assert TaskRun.objects.get().status == Status.SUCCEEDED


def test_a_cancelled_request_is_not_done(container: Container, worked: list[str]) -> None:
    """What was cancelled before its container came stays undone."""
    run = request(status=Status.CANCELLED)

    assert container.run("echo", run_id=str(run.pk)) == 0
    assert worked == []


def test_every_task_of_the_execution_works() -> None:
    """Three tasks of one execution are three shards, and none steps aside for another."""
    run = request()
    for index in range(3):
        with begin(run, index=index, count=3) as attempt:
            assert isinstance(attempt, Attempt)

    assert list(run.tasks.order_by("index").values_list("index", "status")) == [
        (index, Status.SUCCEEDED) for index in range(3)
    ]
    run.refresh_from_db()
    assert (run.status, run.task_count, run.succeeded_count) == (Status.SUCCEEDED, 3, 3)


def test_a_retry_goes_on_with_the_run() -> None:
    """The next attempt of a failed task has the same run, and its row."""
    run = request("outcome")
    with suppress(ZeroDivisionError), begin(run, command="outcome"):
        raise ZeroDivisionError
    with begin(run, command="outcome", attempt=1) as again:
        assert isinstance(again, Attempt)

    task = TaskRun.objects.get()
    assert (task.attempt, task.status, task.exit_code) == (1, Status.SUCCEEDED, 0)


def test_a_retry_of_an_execution_without_a_request_goes_on_too() -> None:
    """An execution that nobody here asked for has one run as well, however many attempts it takes."""
    with suppress(ZeroDivisionError), begin(None, command="outcome"):
        raise ZeroDivisionError
    with begin(None, command="outcome", attempt=1) as again:
        assert isinstance(again, Attempt)

    assert JobRun.objects.get().status == Status.SUCCEEDED


def test_a_task_that_succeeded_is_not_done_again() -> None:
    """A second delivery of an attempt, or of a later one, finds the work done."""
    run = request()
    with begin(run):
        pass
    with begin(run, attempt=1) as again:
        assert isinstance(again, AlreadyClaimed)


def test_a_task_that_is_done_is_not_done_again_for_the_others_sake() -> None:
    """While other tasks of the run go on, too."""
    run = request()
    with begin(run, count=2):
        pass
    with begin(run, count=2, attempt=1) as again:
        assert isinstance(again, AlreadyClaimed)

    assert JobRun.objects.get().status == Status.RUNNING


def test_an_earlier_attempt_does_not_come_back() -> None:
    """Attempts count upwards: what was delivered late steps aside."""
    run = request("outcome")
    with begin(run, command="outcome", attempt=1), begin(run, command="outcome", attempt=0) as late:
        assert isinstance(late, AlreadyClaimed)


def test_a_zombie_writes_nothing() -> None:
    """An attempt that another took over from may end as it likes."""
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
def test_a_run_id_that_is_none_is_refused(
    container: Container, worked: list[str], run_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The container ends with status 2 and a line, and no work is done under a name nobody gave."""
    assert container.run("echo", run_id=run_id) == 2
    assert (worked, JobRun.objects.count()) == ([], 0)
    assert "CLOUDRUN_JOBS_RUN_ID: expected the UUID of a run" in capsys.readouterr().err


def test_a_run_without_a_row_gets_one(
    container: Container, worked: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Pruned, or not in the backup that was restored: the work is done, under the same id, with a warning."""
    run_id = some_id()
    with caplog.at_level(logging.WARNING, "cloudrun_jobs"):
        assert container.run("echo", "--partner=7", run_id=run_id) == 0

    run = JobRun.objects.get()
    assert (str(run.pk), run.status, run.trigger) == (run_id, Status.SUCCEEDED, Trigger.DELAY)
    assert (run.argv, run.execution, worked) == (["echo", "--partner=7"], EXECUTION, ["worked"])
    assert [record.__dict__["action"] for record in caplog.records] == ["run_recreated"]


def test_another_commands_run_is_left_alone(container: Container, worked: list[str]) -> None:
    """A job that a job's process calls inherits its variables, and has a run of its own."""
    run = request("outcome")

    assert container.run("echo", run_id=str(run.pk)) == 0
    run.refresh_from_db()
    assert (run.status, worked) == (Status.PENDING, ["worked"])
    own = JobRun.objects.exclude(pk=run.pk).get()
    assert (own.command, own.status, own.execution) == ("echo", Status.SUCCEEDED, None)


def test_a_job_that_a_job_calls_has_a_run_of_its_own(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within one process too."""
    monkeypatch.setattr(echo.Command, "run", lambda self, **options: call_command("outcome", "none"))

    assert container.run("echo") == 0
    runs = JobRun.objects.order_by("command")
    assert list(runs.values_list("command", "status", "execution")) == [
        ("echo", Status.SUCCEEDED, EXECUTION),
        ("outcome", Status.SUCCEEDED, None),
    ]


def test_a_job_that_calls_itself_has_a_run_each_time(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The execution is the outer one's, though both are the same command."""

    def run(self: echo.Command, *args: object, partner: int | None, **options: object) -> int:
        return partner or call_command("echo", "--partner=7") or 1

    monkeypatch.setattr(echo.Command, "run", run)

    assert container.run("echo") == 0
    runs = JobRun.objects.order_by("created_at")
    assert list(runs.values_list("status", "execution", "result")) == [
        (Status.SUCCEEDED, EXECUTION, 1),
        (Status.SUCCEEDED, None, 7),
    ]


def test_a_start_by_hand_makes_its_own_run(container: Container) -> None:
    """A person at the console has made no request; the record is made at the start, once per execution."""
    assert container.run("echo", "--partner=7", "word", count=2) == 0
    assert container.run("echo", "--partner=7", "word", count=2, index=1) == 0

    run = JobRun.objects.get()
    assert (run.trigger, run.execution, run.task_count) == (Trigger.MANUAL, EXECUTION, 2)
    assert (run.argv, run.status) == (["echo", "--partner=7", "word"], Status.SUCCEEDED)
    assert UUID(str(run.pk)).version == 4


def test_a_tick_is_recorded_as_its_schedules(container: Container) -> None:
    """The entry of Cloud Scheduler and the due time stand in the record."""
    assert container.run("echo", schedule=TICK) == 0

    run = JobRun.objects.get()
    assert (run.trigger, run.schedule, run.status) == (Trigger.SCHEDULE, "echo-nightly", Status.SUCCEEDED)
    assert run.scheduled_for is not None
    assert run.scheduled_for <= run.created_at


def test_a_tick_that_comes_twice_is_one_run(container: Container, worked: list[str]) -> None:
    """Cloud Scheduler delivers at least once: the second execution of a tick is skipped."""
    assert container.run("echo", schedule=TICK) == 0
    assert container.run("echo", schedule=TICK, execution=OTHER) == 0

    assert worked == ["worked"]
    skipped = JobRun.objects.get(execution=OTHER)
    assert (skipped.status, skipped.reason) == (Status.SKIPPED, "same_tick")
    assert skipped.finished_at is not None
    assert EXECUTION in skipped.error_message


def test_ticks_of_two_schedules_are_two_runs(container: Container, worked: list[str]) -> None:
    """Entries that are due at the same time do not stand for one another."""
    assert container.run("echo", schedule=TICK) == 0
    assert container.run("echo", schedule=TICK.replace("nightly", "daily"), execution=OTHER) == 0

    assert worked == ["worked", "worked"]


def test_a_scheduled_attempt_that_failed_is_tried_again(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tick is the execution's own: its retry does not step aside."""
    tick = TICK.replace("echo", "outcome")

    assert container.run("outcome", "error", schedule=tick) == 1
    assert container.run("outcome", "none", schedule=tick, attempt=1) == 0
    assert JobRun.objects.get().status == Status.SUCCEEDED


def test_arguments_that_are_no_text_do_not_stop_the_job(container: Container, worked: list[str]) -> None:
    """Bytes that are not UTF-8 reach Python as half surrogates, which databases refuse."""
    assert container.run("echo", "\udcff") == 0

    run = JobRun.objects.get()
    assert (run.status, run.argv, worked) == (Status.SUCCEEDED, None, ["worked"])
