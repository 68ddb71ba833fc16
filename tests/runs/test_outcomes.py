"""However a job ends, the record says how, and the process ends with the status that says the same."""

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
    """Return a function that runs a job, on its last attempt, whose run() ends as told; it returns the status."""

    def end(ending: Callable[[], Any], **told: Any) -> int:
        monkeypatch.setattr(outcome.Command, "run", lambda self, **options: ending())
        return container.run("outcome", "none", **{"attempt": 2, **told})

    return end


@pytest.mark.parametrize(
    ("ending", "code", "status", "reason", "words"),
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
def test_the_end_is_recorded(
    end: Callable[..., int], ending: Callable[[], Any], code: int, status: Status, reason: str, words: str
) -> None:
    """The status, a word that stays, the error in its own words, and the exit status agree."""
    with suppress(GeneratorExit):
        assert end(ending) == code

    run = JobRun.objects.get()
    assert (run.status, run.reason) == (status, reason)
    assert f"{run.error_class} {run.error_message}".lstrip() == words
    task = run.tasks.get()
    assert (task.status, task.reason, task.exit_code) == (status, reason, code)
    assert None not in {run.finished_at, task.finished_at}
    assert ("Traceback" in run.traceback) == (status != Status.SUCCEEDED)
    counts = (run.succeeded_count, run.failed_count, run.cancelled_count)
    assert counts == tuple(int(status == one) for one in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED))


def test_a_message_without_end_is_cut(end: Callable[..., int]) -> None:
    """The beginning of a message is kept, and the end of a traceback."""
    assert end(raises(ValueError("x" * MIB))) == 1

    run = JobRun.objects.get()
    assert (len(run.error_message), len(run.traceback)) == (10_000, 100_000)


@pytest.mark.parametrize(
    ("result", "kept"),
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
def test_the_result_is_kept(end: Callable[..., int], result: Any, kept: Any) -> None:
    """What run() returned comes out of the database as JSON brings it."""
    assert end(lambda: result) == 0
    assert JobRun.objects.get().result == kept


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
def test_a_result_that_cannot_be_kept_is_a_failure(end: Callable[..., int], result: Any) -> None:
    """The run is not a success that lost its result, nor one that never ends: it failed, and says why."""
    assert end(lambda: result) == 1

    run = JobRun.objects.get()
    assert (run.status, run.error_class, run.result) == (Status.FAILED, "InvalidResult", None)


@pytest.mark.parametrize("depth", [20, 30])
def test_a_deep_result_of_several_tasks_is_kept(depth: int) -> None:
    """MariaDB reads 32 levels of JSON; the list of the tasks' results is one of them."""
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
def test_whatever_happens_to_the_connection(
    database: str, monkeypatch: pytest.MonkeyPatch, harm: Callable[[str], None], then: Callable[[], Any]
) -> None:
    """A run() that leaves the database connection in any state ends on the record all the same."""

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
def test_a_row_deleted_meanwhile_is_made_again(
    end: Callable[..., int], deleted: type[models.Model], is_requested: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody who prunes a running job's record undoes neither the work nor the truth about it."""
    run_id = str(request("outcome").pk) if is_requested else ""

    with caplog.at_level(logging.ERROR, "cloudrun_jobs"):
        assert end(lambda: deleted._default_manager.all().delete() and "done", run_id=run_id) == 0

    run = JobRun.objects.get()
    assert (run.command, run.status, run.result) == ("outcome", Status.SUCCEEDED, "done")
    assert (run.tasks.get().status, run.tasks.get().exit_code) == (Status.SUCCEEDED, 0)
    assert ("its record had been deleted" in caplog.text) == (deleted is JobRun)


def test_a_failed_attempt_with_retries_left_is_no_failed_run(container: Container) -> None:
    """The run goes on until the last attempt: `outcome` has two retries."""
    seen = []
    for attempt in range(3):
        assert container.run("outcome", "error", attempt=attempt) == 1
        run = JobRun.objects.get()
        seen.append((run.status, run.retried_count, run.tasks.get().status))

    assert seen == [
        (Status.RUNNING, 1, Status.RUNNING),
        (Status.RUNNING, 2, Status.RUNNING),
        (Status.FAILED, 2, Status.FAILED),
    ]


def test_a_retry_that_succeeds_leaves_no_error(container: Container) -> None:
    """The run is a success, without the error of an earlier attempt."""
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
    """Two of three tasks are counted and leave it running; the third ends it, with a list of their results."""
    run = request()
    seen = []
    for index in (2, 0, 1):
        finish(run, index, f"of {index}")
        run.refresh_from_db()
        seen.append((run.status, run.succeeded_count))

    assert seen == [(Status.RUNNING, 1), (Status.RUNNING, 2), (Status.SUCCEEDED, 3)]
    assert run.result == ["of 0", "of 1", "of 2"]


def test_what_tasks_returned_stands_at_their_index() -> None:
    """Also where some have not told yet."""
    run = request(task_count=3)
    TaskRun.objects.create(run=run, index=2, worker=run.pk, result="of 2")

    assert run.return_value == [None, None, "of 2"]


@pytest.mark.parametrize(("length", "is_kept"), [(MIB // 3 - 100, True), (MIB // 3, False)])
def test_results_that_are_long_together_stay_with_their_tasks(length: int, is_kept: bool) -> None:
    """A thousand tasks do not make a row of a gigabyte; who asks for what was returned gets it all the same."""
    run, results = request(), ["x" * length] * 3
    for index, result in enumerate(results):
        finish(run, index, result)

    run.refresh_from_db()
    assert (run.status, run.result) == (Status.SUCCEEDED, results if is_kept else None)
    assert run.return_value == results
    assert run.operation.result() == results


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_failed_task_fails_the_run(failing: int) -> None:
    """Whichever it is, first or last; what the others returned is kept."""
    run = request()
    for index in range(3):
        finish(run, index, ValueError("no") if index == failing else index)

    run.refresh_from_db()
    assert (run.status, run.succeeded_count, run.failed_count) == (Status.FAILED, 2, 1)
    assert (run.error_class, run.error_message) == ("ValueError", "no")
    assert run.result == [None if index == failing else index for index in range(3)]


def test_a_task_that_succeeds_at_last_leaves_no_error() -> None:
    """With several tasks too: what an earlier attempt raised is no news of a run that succeeded."""
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
def test_a_task_that_steps_aside_ends_nothing_for_the_others(skipping: int) -> None:
    """With locks of their own, one task may find its work under way elsewhere; the run is what the others do."""
    run = request()
    for index in range(3):
        with begin(run, index=index, count=3) as attempt:
            assert isinstance(attempt, Attempt)
            if index == skipping:
                attempt.skip("a lock", ["somebody"])

    run.refresh_from_db()
    assert (run.status, run.succeeded_count) == (Status.SUCCEEDED, 2)


def test_a_run_of_which_every_task_steps_aside_is_skipped() -> None:
    """Nothing was done."""
    run = request()
    for index in range(3):
        with begin(run, index=index, count=3) as attempt:
            assert isinstance(attempt, Attempt)
            attempt.skip("a lock", ["somebody"])

    run.refresh_from_db()
    assert (run.status, run.reason) == (Status.SKIPPED, "lock_held")
