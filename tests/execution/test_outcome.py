"""Outcomes: the record and the exit status agree, however a job ends."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from functools import reduce
from typing import Any, NoReturn

import pytest
from django.core.management.base import CommandError
from django.db import connections, models, transaction

from cloudrun_jobs.exceptions import LeaseLost, LockTimeout
from cloudrun_jobs.execution.attempt import Attempt
from cloudrun_jobs.models import JobRun, Status, TaskRun
from tests.jobs.management.commands import echo, outcome
from tests.runs.conftest import Container, begin, request

MIB = 2**20


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Numbered(Exception):
    def __str__(self) -> Any:
        return 7


def raises(error: BaseException) -> Callable[[], NoReturn]:
    def ending() -> NoReturn:
        raise error

    return ending


@pytest.fixture
def end(container: Container, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Return a function that makes the last attempt of a job with this run(), and returns the exit status."""

    def end(ending: Callable[[], Any], **variables: Any) -> int:
        monkeypatch.setattr(outcome.Command, "run", lambda self, **options: ending())
        return container.run("outcome", "none", **{"attempt": 2, **variables})

    return end


@pytest.mark.parametrize(
    ("ending", "code", "status", "reason", "message"),
    [
        (lambda: None, 0, Status.SUCCEEDED, "", ""),
        (lambda: sys.exit(0), 0, Status.SUCCEEDED, "", ""),
        (lambda: sys.exit(None), 0, Status.SUCCEEDED, "", ""),
        (lambda: sys.exit(3), 3, Status.FAILED, "exit_code", "SystemExit 3"),
        (lambda: sys.exit(256), 1, Status.FAILED, "exit_code", "SystemExit 256"),
        (lambda: sys.exit("no good"), 1, Status.FAILED, "exit_code", "SystemExit no good"),
        (lambda: 1 / 0, 1, Status.FAILED, "error", "ZeroDivisionError division by zero"),
        (raises(CommandError("bad input")), 1, Status.FAILED, "error", "CommandError bad input"),
        (raises(CommandError("bad input", returncode=9)), 9, Status.FAILED, "error", "CommandError bad input"),
        (raises(KeyboardInterrupt()), 130, Status.CANCELLED, "keyboard", "KeyboardInterrupt "),
        (raises(LeaseLost("gone")), 75, Status.FAILED, "lock_lost", "LeaseLost gone"),
        (raises(LockTimeout("held")), 75, Status.FAILED, "lock", "LockTimeout held"),
        (raises(GeneratorExit()), 1, Status.FAILED, "error", "GeneratorExit "),
        (raises(Unspeakable()), 1, Status.FAILED, "error", "Unspeakable str() of it raised RuntimeError."),
        (raises(Numbered()), 1, Status.FAILED, "error", "Numbered str() of it raised TypeError."),
        (raises(ValueError("a\0b")), 1, Status.FAILED, "error", r"ValueError a\x00b"),
        (raises(ValueError("\ud800")), 1, Status.FAILED, "error", r"ValueError \ud800"),
        (raises(ValueError("é日🦊")), 1, Status.FAILED, "error", "ValueError é日🦊"),
    ],
    ids=[
        *("return", "exit 0", "exit None", "exit 3", "exit 256", "exit text", "error", "command error", "code 9"),
        *(
            "keyboard",
            "lease lost",
            "lock",
            "generator exit",
            "no words",
            "no text",
            "nul",
            "surrogate",
            "unicode",
        ),
    ],
)
def test_the_outcome_is_recorded(
    end: Callable[..., int], ending: Callable[[], Any], code: int, status: Status, reason: str, message: str
) -> None:
    """The status, the reason, the error and the exit status agree."""
    with suppress(GeneratorExit):
        assert end(ending) == code

    run = JobRun.objects.get()
    assert (run.status, run.reason) == (status, reason)
    assert f"{run.error_class} {run.error_message}".lstrip() == message
    task = run.tasks.get()
    assert (task.status, task.reason, task.exit_code) == (status, reason, code)
    assert None not in {run.finished_at, task.finished_at}
    assert ("Traceback" in run.traceback) == (status != Status.SUCCEEDED)
    counts = (run.succeeded_count, run.failed_count, run.cancelled_count)
    assert counts == tuple(int(status == one) for one in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED))


def test_long_messages_are_truncated(end: Callable[..., int]) -> None:
    """The start of a message and the end of a traceback are kept."""
    assert end(raises(ValueError("x" * MIB))) == 1

    run = JobRun.objects.get()
    assert (len(run.error_message), len(run.traceback)) == (10_000, 100_000)


@pytest.mark.parametrize(
    ("result", "stored"),
    [
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00Z"),
        (Decimal("1.50"), "1.50"),
        ({"é日🦊": [1, 2.5, True, None]}, {"é日🦊": [1, 2.5, True, None]}),
        (r"C:\u0000", r"C:\u0000"),
        ("x" * (MIB - 2), "x" * (MIB - 2)),
        (0, 0),
        ("", ""),
        (2**70, 2**70),
    ],
    ids=["datetime", "decimal", "text", "backslash", "1 MiB", "zero", "empty", "big"],
)
def test_the_result_is_stored(end: Callable[..., int], result: Any, stored: Any) -> None:
    """The record has the result of run() in its JSON form."""
    assert end(lambda: result) == 0
    assert JobRun.objects.get().result == stored


def nested(depth: int) -> list[Any]:
    return reduce(lambda inner, _: [inner], range(depth - 1), [])


@pytest.mark.parametrize(
    "result",
    [
        {1, 2},
        float("nan"),
        "a\0b",
        {"a\0": 1},
        "\udfff",
        "x" * MIB,
        {(1, 2): 3},
        nested(40),
        nested(5000),
        10**5000,
    ],
    ids=["set", "nan", "nul", "nul in a key", "surrogate", "long", "tuple as key", "deep", "deeper", "huge"],
)
def test_a_result_that_cannot_be_stored_is_a_failure(end: Callable[..., int], result: Any) -> None:
    """A run whose result cannot be stored fails with InvalidResult."""
    assert end(lambda: result) == 1

    run = JobRun.objects.get()
    assert (run.status, run.error_class, run.result) == (Status.FAILED, "InvalidResult", None)


@pytest.mark.parametrize("depth", [20, 30])
def test_deep_results_of_several_tasks_are_stored(depth: int) -> None:
    """MariaDB reads 32 levels of JSON, and the list of results is one of them."""
    run = request()
    for index in range(2):
        with begin(run, index=index, count=2) as attempt:
            assert isinstance(attempt, Attempt)
            attempt.succeed(nested(depth))

    run.refresh_from_db()
    assert (run.status, run.result) == (Status.SUCCEEDED, [nested(depth)] * 2)


def close(alias: str) -> None:
    connections[alias].close()


def switch_autocommit_off(alias: str) -> None:
    connections[alias].set_autocommit(False)


def leave_a_transaction_open(alias: str) -> None:
    transaction.atomic(using=alias).__enter__()


def break_a_transaction(alias: str) -> None:
    leave_a_transaction_open(alias)
    connections[alias].needs_rollback = True


HARMS = [close, switch_autocommit_off, leave_a_transaction_open, break_a_transaction]


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("then", [lambda: "done", lambda: 1 / 0], ids=["succeeds", "fails"])
def test_the_outcome_is_recorded_after_harm_to_the_connection(
    database: str, monkeypatch: pytest.MonkeyPatch, harm: Callable[[str], None], then: Callable[[], Any]
) -> None:
    """The outcome is recorded in whatever state run() leaves the database connection."""

    def run(self: echo.Command, **options: Any) -> Any:
        harm(database)
        return then()

    monkeypatch.setattr(echo.Command, "run", run)
    with suppress(ZeroDivisionError):
        echo.Command().delay()

    run_ = JobRun.objects.get()
    assert (run_.status, run_.error_class) in {(Status.SUCCEEDED, ""), (Status.FAILED, "ZeroDivisionError")}
    assert run_.tasks.get().status == run_.status
    assert not connections[database].in_atomic_block


@pytest.mark.parametrize("deleted", [JobRun, TaskRun])
@pytest.mark.parametrize("is_requested", [True, False])
def test_a_row_deleted_meanwhile_is_inserted_again(
    end: Callable[..., int], deleted: type[models.Model], is_requested: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The outcome is recorded even if the record is deleted while the job is running."""
    run_id = str(request("outcome").pk) if is_requested else ""

    with caplog.at_level(logging.ERROR, "cloudrun_jobs"):
        assert end(lambda: deleted._default_manager.all().delete() and "done", run_id=run_id) == 0

    run = JobRun.objects.get()
    assert (run.command, run.status, run.result) == ("outcome", Status.SUCCEEDED, "done")
    assert (run.tasks.get().status, run.tasks.get().exit_code) == (Status.SUCCEEDED, 0)
    assert ("its record had been deleted" in caplog.text) == (deleted is JobRun)


def test_a_failed_attempt_with_retries_left_keeps_the_run(container: Container) -> None:
    """The run is running until the last attempt fails: `outcome` has two retries."""
    seen = []
    for attempt in range(3):
        assert container.run("outcome", "error", attempt=attempt) == 1
        run = JobRun.objects.get()
        seen.append((run.status, run.retried_count, run.tasks.get().status))

    assert seen == [
        (Status.RUNNING, 0, Status.RUNNING),
        (Status.RUNNING, 1, Status.RUNNING),
        (Status.FAILED, 1, Status.FAILED),
    ]


def test_a_retry_that_succeeds_leaves_no_error(container: Container) -> None:
    """The record of a successful run has no error of an earlier attempt."""
    assert container.run("outcome", "error") == 1
    assert container.run("outcome", "text", attempt=1) == 0

    run = JobRun.objects.get()
    assert (run.status, run.result, run.error_class) == (Status.SUCCEEDED, "all done", "")


def finish(run: JobRun, index: int, result: Any) -> None:
    with suppress(ValueError), begin(run, index=index, count=3) as attempt:
        assert isinstance(attempt, Attempt)
        if isinstance(result, Exception):
            raise result
        attempt.succeed(result)


def test_a_run_ends_with_its_last_task() -> None:
    """Two finished tasks are counted; the third ends the run with a list of results."""
    run = request()
    seen = []
    for index in (2, 0, 1):
        finish(run, index, f"of {index}")
        run.refresh_from_db()
        seen.append((run.status, run.succeeded_count))

    assert seen == [(Status.RUNNING, 1), (Status.RUNNING, 2), (Status.SUCCEEDED, 3)]
    assert run.result == ["of 0", "of 1", "of 2"]


def test_results_of_tasks_are_listed_by_index() -> None:
    """Tasks without a result yet have None."""
    run = request(task_count=3)
    TaskRun.objects.create(run=run, index=2, worker=run.pk, result="of 2")

    assert run.return_value == [None, None, "of 2"]


@pytest.mark.parametrize(("length", "is_combined"), [(MIB // 3 - 100, True), (MIB // 3, False)])
def test_long_combined_results_stay_with_the_tasks(length: int, is_combined: bool) -> None:
    """Results that are too long for one row are read from the rows of the tasks."""
    run, results = request(), ["x" * length] * 3
    for index, result in enumerate(results):
        finish(run, index, result)

    run.refresh_from_db()
    assert (run.status, run.result) == (Status.SUCCEEDED, results if is_combined else None)
    assert run.return_value == results
    assert run.operation.result() == results


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_failed_task_fails_the_run(failing: int) -> None:
    """The run fails whichever task fails, and keeps the results of the other tasks."""
    run = request()
    for index in range(3):
        finish(run, index, ValueError("no") if index == failing else index)

    run.refresh_from_db()
    assert (run.status, run.succeeded_count, run.failed_count) == (Status.FAILED, 2, 1)
    assert (run.error_class, run.error_message) == ("ValueError", "no")
    assert run.result == [None if index == failing else index for index in range(3)]


def test_tasks_that_succeed_on_retry_leave_no_error() -> None:
    """The record of a successful run with several tasks has no error of an earlier attempt."""
    run = request("outcome")
    with suppress(ValueError), begin(run, command="outcome", count=2):
        raise ValueError("no")
    run.refresh_from_db()
    assert (run.status, run.error_class) == (Status.RUNNING, "ValueError")

    for index in range(2):
        with begin(run, command="outcome", count=2, index=index, attempt=1):
            pass
    run.refresh_from_db()
    assert (run.status, run.error_class, run.traceback) == (Status.SUCCEEDED, "", "")


@pytest.mark.parametrize("skipping", [0, 1, 2])
def test_a_skipped_task_does_not_skip_the_run(skipping: int) -> None:
    """If one task is skipped, the outcome of the run is that of the other tasks."""
    run = request()
    for index in range(3):
        with begin(run, index=index, count=3) as attempt:
            assert isinstance(attempt, Attempt)
            if index == skipping:
                attempt.skip("a lock", ["a holder"])

    run.refresh_from_db()
    assert (run.status, run.succeeded_count) == (Status.SUCCEEDED, 2)


def test_a_run_whose_tasks_are_all_skipped_is_skipped() -> None:
    """A run without any work is skipped."""
    run = request()
    for index in range(3):
        with begin(run, index=index, count=3) as attempt:
            assert isinstance(attempt, Attempt)
            attempt.skip("a lock", ["a holder"])

    run.refresh_from_db()
    assert (run.status, run.reason) == (Status.SKIPPED, "lock_held")
