"""Admission: all tasks and attempts of an execution work, or all are skipped."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections
from django.test.utils import CaptureQueriesContext

from cloudrun_jobs.exceptions import LockUnavailable
from cloudrun_jobs.execution import locking
from cloudrun_jobs.execution.attempt import Attempt
from cloudrun_jobs.locks import acquire, current, local, names, policy
from cloudrun_jobs.locks.base import Grant, Owner
from cloudrun_jobs.locks.local import LocalLocks
from cloudrun_jobs.models import JobRun, Status, TaskRun
from cloudrun_jobs.operations import ExecutionState
from tests.jobs.management.commands import echo, outcome
from tests.runs.conftest import EXECUTION, OTHER, Container, request

OPTIONS = {"ending": "none"}


@pytest.fixture(autouse=True)
def worked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let run() return the number of its call; return these numbers."""
    calls: list[int] = []

    def run(self: outcome.Command, **options: Any) -> int:
        calls.append(len(calls) + 1)
        return calls[-1]

    monkeypatch.setattr(outcome.Command, "run", run)
    return calls


def declare(monkeypatch: pytest.MonkeyPatch, **attributes: Any) -> None:
    for name, value in attributes.items():
        monkeypatch.setattr(outcome.Command, name, value, raising=False)


def fail_once(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let the next run() raise."""
    run = outcome.Command.run

    def failing(self: outcome.Command, **options: Any) -> None:
        monkeypatch.setattr(outcome.Command, "run", run)
        raise error

    monkeypatch.setattr(outcome.Command, "run", failing)


def hold(part: str = "") -> Callable[[], object]:
    """Hold the lock of the same run for another execution; return a function that releases it."""
    name = names.for_arguments("outcome", OPTIONS)
    name = name.part(part, f"[{part}]") if part else name
    grant = current().acquire(name, 1, Owner(holder=OTHER, nonce=OTHER), 600)
    assert isinstance(grant, Grant)
    return lambda: current().release(grant)


def held() -> list[str]:
    return [holder.label for holder in current().holders(names.prefix())]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """Instead of waiting for a lock, call the functions in this list, once; without one, the test fails."""
    steps: list[Callable[[], object]] = []
    monkeypatch.setattr(locking, "_sleep", lambda job, seconds: steps.pop(0)())
    return steps


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("first", [0, 1])
def test_all_tasks_follow_the_first_one_that_is_skipped(
    container: Container,
    monkeypatch: pytest.MonkeyPatch,
    worked: list[int],
    count: int,
    first: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A task that starts after the lock is free takes none if another task of its execution was skipped."""
    release = hold()
    assert container.run("outcome", "none", count=count, index=first) == 0
    release()
    with monkeypatch.context() as without_locks:
        without_locks.setattr(acquire, "try_once", None)
        for index in {*range(count)} - {first}:
            assert container.run("outcome", "none", count=count, index=index) == 0

    run = JobRun.objects.get()
    assert (run.status, run.reason, run.succeeded_count) == (Status.SKIPPED, "lock_held", 0)
    assert f"is held by {OTHER}" in run.error_message
    assert set(run.tasks.values_list("status", "admitted", "exit_code")) == {(Status.SKIPPED, False, 0)}
    assert (worked, held()) == ([], [])
    assert "was held when another task of the execution started" in caplog.text

    assert container.run("outcome", "none", execution="outcome-test-next") == 0
    assert worked == [1]


def test_all_tasks_follow_the_first_one_that_works(
    container: Container, worked: list[int], waits: list[Callable[[], object]]
) -> None:
    """A task that finds the lock held by another execution waits for it if its own execution works."""
    assert container.run("outcome", "none", count=2) == 0
    local.clear()  # The second task starts after the leases of its execution have expired.
    waits.append(hold())
    assert container.run("outcome", "none", count=2, index=1) == 0

    run = JobRun.objects.get()
    assert (run.status, run.succeeded_count, run.result) == (Status.SUCCEEDED, 2, [1, 2])
    assert (run.admitted, waits) == (True, [])


def test_a_working_execution_waits_no_longer_than_lock_timeout(
    container: Container, monkeypatch: pytest.MonkeyPatch, worked: list[int]
) -> None:
    """The task ends with 75 then, and the run fails: it is neither skipped nor a success."""
    declare(monkeypatch, lock_timeout=0)
    assert container.run("outcome", "none", count=2, attempt=2) == 0
    local.clear()
    hold()

    assert container.run("outcome", "none", count=2, index=1, attempt=2) == 75
    run = JobRun.objects.get()
    assert (run.status, run.error_class, run.succeeded_count) == (Status.FAILED, "LockTimeout", 1)


@pytest.mark.parametrize("admitted", [True, False])
def test_two_tasks_that_decide_at_once_agree(
    container: Container, monkeypatch: pytest.MonkeyPatch, worked: list[int], admitted: bool
) -> None:
    """The decision that is recorded first counts, whatever the other task has found at the lock."""
    record = Attempt._record_decision
    release = hold() if admitted else lambda: None

    def second(*args: Any) -> None:
        JobRun.objects.update(admitted=admitted)  # By the other task.
        release()
        record(*args)

    monkeypatch.setattr(Attempt, "_record_decision", second)

    assert container.run("outcome", "none", count=2, attempt=1) == 0
    assert TaskRun.objects.get().status == (Status.SUCCEEDED if admitted else Status.SKIPPED)
    assert (len(worked), JobRun.objects.get().admitted) == (int(admitted), admitted)
    # The next task of an execution that works needs the lock; one that is skipped leaves none behind.
    assert bool(held()) == admitted


@pytest.mark.parametrize("status", [0, 1])
def test_a_decision_without_a_record_counts_for_the_task(
    container: Container, monkeypatch: pytest.MonkeyPatch, worked: list[int], status: int
) -> None:
    """If the record is deleted before the decision, the task's own counts, and is inserted with the record."""
    record = Attempt._record_decision

    def deleted(*args: Any) -> None:
        JobRun.objects.all().delete()
        record(*args)

    monkeypatch.setattr(Attempt, "_record_decision", deleted)
    if not status:
        hold()

    assert container.run("outcome", "none", count=2) == 0
    assert (len(worked), JobRun.objects.get().admitted) == (status, bool(status))


def test_a_retry_waits_after_a_failure(
    container: Container,
    monkeypatch: pytest.MonkeyPatch,
    worked: list[int],
    waits: list[Callable[[], object]],
) -> None:
    """The only task of an execution that has worked once is not skipped, in however many attempts."""
    fail_once(monkeypatch, ValueError())
    assert container.run("outcome", "none") == 1
    declare(monkeypatch, lock_timeout=0)
    release = hold()
    assert container.run("outcome", "none", attempt=1) == 75
    declare(monkeypatch, lock_timeout=600)
    waits.append(release)
    assert container.run("outcome", "none", attempt=2) == 0

    assert (JobRun.objects.get().status, worked, waits) == (Status.SUCCEEDED, [1], [])


@pytest.mark.parametrize("count", [1, 2])
def test_a_retry_waits_after_a_kill(
    container: Container,
    monkeypatch: pytest.MonkeyPatch,
    worked: list[int],
    waits: list[Callable[[], object]],
    count: int,
) -> None:
    """An attempt that was killed at work left no outcome, and its leases expire: the retry waits all the same."""
    with monkeypatch.context() as killed:
        killed.setattr(Attempt, "_record", lambda *args: None)
        fail_once(monkeypatch, ValueError())
        assert container.run("outcome", "none", count=count) == 1
    local.clear()
    waits.append(hold())

    assert container.run("outcome", "none", count=count, attempt=1) == 0
    assert (TaskRun.objects.get().status, worked, waits) == (Status.SUCCEEDED, [1], [])


class Unavailable(LocalLocks):
    """A server that does not reply."""

    def acquire(self, *args: Any) -> Any:
        raise LockUnavailable("unavailable in this test")


def test_a_retry_decides_anew_after_an_attempt_that_could_not(
    container: Container, settings: Any, monkeypatch: pytest.MonkeyPatch, worked: list[int]
) -> None:
    """An attempt that did not reach the lock server has decided nothing."""
    monkeypatch.setattr(acquire, "SERVER_OUTAGE_LIMIT", 0)
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test", "LOCKS": {"BACKEND": f"{__name__}.Unavailable"}}
    assert container.run("outcome", "none") == 75
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test"}
    hold()

    assert container.run("outcome", "none", attempt=1) == 0
    run = JobRun.objects.get()
    assert (run.status, run.reason, worked) == (Status.SKIPPED, "lock_held", [])


def test_each_task_decides_with_its_own_locks(
    container: Container, monkeypatch: pytest.MonkeyPatch, worked: list[int]
) -> None:
    """With `lock_scope = "task"` a skipped task is done, with the result None, and the other tasks work."""
    declare(monkeypatch, lock_scope="task")
    hold("1")
    for index in range(3):
        assert container.run("outcome", "none", count=3, index=index) == 0

    run = JobRun.objects.get()
    assert (run.status, run.reason, run.result) == (Status.SUCCEEDED, "", [1, None, 2])
    assert list(run.tasks.order_by("index").values_list("admitted", flat=True)) == [True, False, True]
    assert (run.admitted, held()) == (None, ["outcome#" + held()[0].partition("#")[2]])


def test_a_retry_of_a_task_with_its_own_locks_waits(
    container: Container,
    monkeypatch: pytest.MonkeyPatch,
    worked: list[int],
    waits: list[Callable[[], object]],
) -> None:
    """A task that has worked once is not skipped, so its failure is not taken for a task that is done."""
    declare(monkeypatch, lock_scope="task")
    fail_once(monkeypatch, ValueError())
    assert container.run("outcome", "none", count=2) == 1
    waits.append(hold("0"))

    assert container.run("outcome", "none", count=2, attempt=1) == 0
    assert (worked, TaskRun.objects.get().status, waits) == ([1], Status.SUCCEEDED, [])


@pytest.mark.parametrize("overlap", ["wait", "fail", "allow"])
def test_an_execution_that_never_is_skipped_decides_nothing(
    container: Container, monkeypatch: pytest.MonkeyPatch, worked: list[int], overlap: str
) -> None:
    """Without `overlap = "skip"` there is nothing to decide, and nothing is recorded."""
    declare(monkeypatch, overlap=overlap)
    monkeypatch.setattr(Attempt, "_record_decision", None)
    for index in range(2):
        assert container.run("outcome", "none", count=2, index=index) == 0

    run = JobRun.objects.get()
    assert (run.status, run.admitted, run.result) == (Status.SUCCEEDED, None, [1, 2])


def test_a_cancelled_execution_stays_cancelled(container: Container, worked: list[int]) -> None:
    """After cancel(), the tasks that were to follow a decision are cancelled."""
    assert container.run("outcome", "none", count=3) == 0
    JobRun.objects.update(cancel_requested_at=datetime.now(UTC))
    local.clear()
    hold()
    for index in (1, 2):
        assert container.run("outcome", "none", count=3, index=index) == 0

    run = JobRun.objects.get()
    assert (run.status, run.succeeded_count, run.cancelled_count) == (Status.CANCELLED, 1, 2)


def test_a_new_run_of_the_same_request_decides_anew(container: Container, worked: list[int]) -> None:
    """A run that repeats a skipped one has a record of its own."""
    first, again = (request("outcome", argv=["outcome", "none"]) for _ in range(2))
    release = hold()
    assert container.run("outcome", "none", count=2, run_id=str(first.pk)) == 0
    release()
    for index in range(2):
        task = {"count": 2, "index": index, "execution": "outcome-test-again"}
        assert container.run("outcome", "none", run_id=str(again.pk), **task) == 0

    again.refresh_from_db()
    assert (again.status, again.result) == (Status.SUCCEEDED, [1, 2])


def test_cloud_run_reports_no_success_of_a_skipped_execution(container: Container, worked: list[int]) -> None:
    """Containers that are skipped exit with 0, and Cloud Run counts them as succeeded."""
    hold()
    assert container.run("outcome", "none", count=2) == 0  # The other task was killed after its decision.
    state = ExecutionState(status="succeeded", task_count=2, succeeded_count=2)

    run = JobRun.objects.get()
    assert run.apply_state(state, EXECUTION) is True
    run.refresh_from_db()
    assert (run.status, run.reason, run.succeeded_count) == (Status.SKIPPED, "lock_held", 0)
    assert f"is held by {OTHER}" in run.error_message


@pytest.mark.parametrize("index", [0, 1])
def test_a_job_that_a_task_calls_has_locks_of_its_own(
    container: Container, monkeypatch: pytest.MonkeyPatch, index: int
) -> None:
    """It has one task, so its locks are free when it ends, although the calling execution has other tasks."""
    seen: list[list[str]] = []
    monkeypatch.setattr(echo.Command, "run", lambda self, **options: seen.append(held()))
    monkeypatch.setattr(outcome.Command, "run", lambda self, **options: call_command("echo"))
    declare(monkeypatch, overlap="allow", parallelism=None)

    assert container.run("outcome", "none", count=2, index=index) == 0
    assert (len(seen), len(seen[0]), held()) == (1, 2, [])


def test_one_of_two_tasks_runs_the_job_that_both_call(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that two tasks of an execution call does not run twice at the same time."""
    calls: list[str] = []

    def run(self: echo.Command, **options: Any) -> None:
        calls.append("echo")
        container.environment(count=2, index=1)
        Context().run(call_command, echo.Command())  # As the other task does, at the same time.
        container.environment(count=2)

    monkeypatch.setattr(echo.Command, "run", run)
    monkeypatch.setattr(outcome.Command, "run", lambda self, **options: call_command("echo"))
    declare(monkeypatch, overlap="allow", parallelism=None)

    assert container.run("outcome", "none", count=2) == 0
    assert calls == ["echo"]


def statements(database: str, run: Callable[[], int]) -> int:
    with CaptureQueriesContext(connections[database]) as captured:
        assert run() == 0
    return len(captured)


def test_a_decision_costs_one_statement_per_execution(
    container: Container, monkeypatch: pytest.MonkeyPatch, database: str, worked: list[int]
) -> None:
    """An execution with one task pays none, with retries or without; of several tasks, the first pays."""
    run = container.run

    def count(**variables: Any) -> int:
        return statements(database, lambda: run("outcome", "none", **variables))

    connections[database].ensure_connection()
    one = count(execution="a")
    several = [count(execution="b", count=3, index=index) for index in (1, 0, 2)]
    declare(monkeypatch, overlap="wait")
    undecided = [count(execution="c", count=3, index=index) for index in (1, 0, 2)]
    declare(monkeypatch, overlap="skip", max_retries=0)

    assert (count(execution="d"), one) == (one, 4)
    assert [paid - free for paid, free in zip(several, undecided, strict=True)] == [1, 0, 0]


def test_a_skipped_execution_does_not_wait_for_a_slot_of_the_job(
    container: Container, monkeypatch: pytest.MonkeyPatch, worked: list[int], waits: list[Callable[[], object]]
) -> None:
    """A task that claims before the decision and locks after it holds nothing while it finds out."""
    current().acquire(names.for_job("outcome"), 1, Owner(holder=OTHER, nonce=OTHER), 600)
    required = policy.required_locks

    def decided_in_between(*args: Any) -> Any:
        JobRun.objects.update(admitted=False)
        return required(*args)

    monkeypatch.setattr(policy, "required_locks", decided_in_between)

    assert container.run("outcome", "none", count=2, index=1) == 0
    assert (worked, waits) == ([], [])
    assert TaskRun.objects.get().status == Status.SKIPPED
    assert [holder.holder for holder in current().holders(names.prefix())] == [OTHER]
