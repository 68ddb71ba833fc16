"""`reduce()`: called once, when all tasks have ended, and its value is the result of the run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from threading import Barrier, Thread
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.db import connections
from pytest_django import Settings

from cloudrun_jobs.environ import CloudRunTask
from cloudrun_jobs.exceptions import JobFailed, JobInterrupted
from cloudrun_jobs.execution import locking, runner
from cloudrun_jobs.execution.attempt import Attempt
from cloudrun_jobs.execution.claim import Invocation
from cloudrun_jobs.execution.recording import record_attempt
from cloudrun_jobs.execution.termination import Termination
from cloudrun_jobs.models import JobRun, Status, TaskRun
from tests.jobs.management.commands import echo, outcome
from tests.runs.conftest import EXECUTION, OTHER, Container, in_every_database, request, store_records


@pytest.fixture(params=["postgres"], autouse=True)
def database(request: pytest.FixtureRequest, settings: Settings, django_db_blocker: Any) -> Iterator[str]:
    """Store the records in one kind of database, except for tests that need each."""
    yield from store_records(request, settings, django_db_blocker)


class Reducing:
    """What `run()` and `reduce()` of the job do, and the calls of `reduce()`."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[Any], tuple[int, ...]]] = []
        self.work: Callable[[], Any] = lambda: "done"
        self.then: Callable[[list[Any]], Any] = lambda results: {"of": results}


@pytest.fixture
def reducing(monkeypatch: pytest.MonkeyPatch) -> Reducing:
    """Give the job `outcome`, which has two retries, a `reduce()`."""
    scene = Reducing()

    def reduce(self: outcome.Command, results: list[Any]) -> Any:
        scene.calls.append((results, tuple(self.failed_tasks)))
        return scene.then(results)

    monkeypatch.setattr(outcome.Command, "reduce", reduce, raising=False)
    monkeypatch.setattr(outcome.Command, "run", lambda self, **options: scene.work())
    return scene


def fail(*args: Any) -> None:
    raise ValueError("no")


LAST = {"attempt": 2}


def task(container: Container, scene: Reducing, run: JobRun, index: int, result: Any, **variables: Any) -> int:
    """Run one of three tasks as a container; a function as the result replaces `run()`."""
    scene.work = result if callable(result) else lambda: result
    return container.run("outcome", "none", run_id=str(run.pk), index=index, count=3, **variables)


def recorded() -> tuple[str, str, Any]:
    run = JobRun.objects.get()
    return run.status, run.reason, run.return_value


@in_every_database
def test_the_last_task_reduces(container: Container, reducing: Reducing) -> None:
    """The results are ordered by index, and stay in the rows of the tasks."""
    run = request("outcome")
    for index in (2, 0, 1):
        assert not reducing.calls
        assert task(container, reducing, run, index, index) == 0

    assert reducing.calls == [([0, 1, 2], ())]
    assert recorded() == (Status.SUCCEEDED, "", {"of": [0, 1, 2]})
    assert run.operation.result() == {"of": [0, 1, 2]}
    assert list(run.tasks.order_by("index").values_list("result", flat=True)) == [0, 1, 2]
    assert (JobRun.objects.get().succeeded_count, JobRun.objects.get().reduces) == (3, True)


def test_one_task_reduces_its_result(reducing: Reducing, capsys: pytest.CaptureFixture[str]) -> None:
    """It does inline, and with `manage.py <command>`, too."""
    assert outcome.Command().delay("none").result() == {"of": ["done"]}
    reducing.then = lambda results: f"of {results[0]}"
    call_command("outcome", "none")

    assert capsys.readouterr().out == "of done\n"
    assert [results for results, _ in reducing.calls] == [["done"], ["done"]]
    assert list(TaskRun.objects.values_list("status", "result")) == [(Status.SUCCEEDED, "done")] * 2


def test_coroutines_reduce(reducing: Reducing, monkeypatch: pytest.MonkeyPatch) -> None:
    """`async def reduce()` runs in its own event loop, as `async def run()` does."""

    async def reduce(self: outcome.Command, results: list[Any]) -> Any:
        return results

    monkeypatch.setattr(outcome.Command, "reduce", reduce)

    assert outcome.Command().delay("none").result() == ["done"]


def test_exit_with_0_is_a_success(container: Container, reducing: Reducing) -> None:
    """`sys.exit(0)` in run() ends the task; in reduce() it ends the run without a value."""
    reducing.work = lambda: sys.exit(0)
    assert container.run("outcome", "none") == 0
    assert recorded() == (Status.SUCCEEDED, "", {"of": [None]})

    reducing.then = lambda results: sys.exit(0)
    assert container.run("outcome", "none", execution=OTHER) == 0
    assert JobRun.objects.get(execution=OTHER).status == Status.SUCCEEDED


def test_a_failed_task_is_not_reduced(container: Container, reducing: Reducing) -> None:
    """The run ends with the failure, and keeps the results of its tasks."""
    run = request("outcome")
    for index, result in enumerate(["a", fail, "c"]):
        task(container, reducing, run, index, result, **LAST)

    assert reducing.calls == []
    assert recorded()[:2] == (Status.FAILED, "task")
    assert list(run.tasks.order_by("index").values_list("result", flat=True)) == ["a", None, "c"]


@pytest.mark.parametrize("failing", [0, 2])
def test_partial_results_are_reduced(
    container: Container, reducing: Reducing, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """With `reduce_partial` it is called anyway, even by the failed task; the run fails, with the value."""
    monkeypatch.setattr(outcome.Command, "reduce_partial", True)
    run = request("outcome")
    codes = [
        task(container, reducing, run, index, fail if index == failing else index, **LAST) for index in range(3)
    ]

    expected = [None if index == failing else index for index in range(3)]
    assert codes == [int(index == failing) for index in range(3)]
    assert reducing.calls == [(expected, (failing,))]
    run = JobRun.objects.get()
    assert (run.status, run.result, run.failed_count) == (Status.FAILED, {"of": expected}, 1)
    assert (run.error_class, run.error_message) == ("ValueError", "no")


def test_a_failed_attempt_with_retries_left_is_not_reduced(
    container: Container, reducing: Reducing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task has not ended."""
    monkeypatch.setattr(outcome.Command, "reduce_partial", True)
    run = request("outcome")
    for index, result in enumerate(["a", "b", fail]):
        task(container, reducing, run, index, result)
    assert (reducing.calls, JobRun.objects.get().status) == ([], Status.RUNNING)

    task(container, reducing, run, 2, "c", attempt=1)
    assert reducing.calls == [(["a", "b", "c"], ())]
    assert recorded() == (Status.SUCCEEDED, "", {"of": ["a", "b", "c"]})


def test_a_run_that_was_marked_as_lost_is_reduced(container: Container, reducing: Reducing) -> None:
    """Its process reports, as without reduce()."""

    def lose() -> str:
        JobRun.objects.update(status=Status.LOST, reason="process_died")
        return "done"

    reducing.work = lose
    assert container.run("outcome", "none") == 0
    assert recorded() == (Status.SUCCEEDED, "", {"of": ["done"]})


def test_an_error_of_reduce_is_retried(container: Container, reducing: Reducing) -> None:
    """Cloud Run's retry of the task calls reduce() again, but not run(); the run fails with the last attempt."""
    run = request("outcome")
    task(container, reducing, run, 0, "a")
    task(container, reducing, run, 1, "b")
    reducing.then = fail
    assert task(container, reducing, run, 2, "c") == 1
    assert recorded()[:2] == (Status.RUNNING, "")
    assert JobRun.objects.get().error_class == "ValueError"

    assert task(container, reducing, run, 2, "not done again", attempt=1) == 1
    assert JobRun.objects.get().status == Status.RUNNING
    assert task(container, reducing, run, 2, "not done again", **LAST) == 1

    assert reducing.calls == [(["a", "b", "c"], ())] * 3
    assert recorded() == (Status.FAILED, "reduce", None)
    assert (JobRun.objects.get().error_message, JobRun.objects.get().succeeded_count) == ("no", 3)
    assert set(TaskRun.objects.values_list("status", flat=True)) == {Status.SUCCEEDED}
    assert list(run.tasks.order_by("index").values_list("result", flat=True)) == ["a", "b", "c"]


def test_a_retry_of_reduce_that_succeeds_leaves_no_error(container: Container, reducing: Reducing) -> None:
    reducing.then = fail
    assert container.run("outcome", "none") == 1
    reducing.then = len
    assert container.run("outcome", "none", attempt=1) == 0

    assert recorded() == (Status.SUCCEEDED, "", 1)
    assert JobRun.objects.get().error_class == ""


def test_a_value_that_json_cannot_express_fails(reducing: Reducing) -> None:
    """The error names reduce()."""
    reducing.then = set
    with pytest.raises(Exception, match=r"outcome: reduce\(\) returned a value that JSON cannot express"):
        outcome.Command().delay("none")

    assert recorded() == (Status.FAILED, "reduce", None)


@pytest.mark.parametrize("attempt", [0, 2])
def test_an_interrupted_reduce(container: Container, reducing: Reducing, attempt: int) -> None:
    """SIGTERM interrupts reduce(): the retry calls it again; without a retry the run is interrupted."""

    def interrupt(results: list[Any]) -> None:
        raise JobInterrupted("interrupted")

    reducing.then = interrupt
    assert container.run("outcome", "none", attempt=attempt) == 143

    status = (Status.FAILED, "interrupted", None) if attempt else (Status.RUNNING, "", None)
    assert recorded() == status
    assert TaskRun.objects.get().status == Status.SUCCEEDED


def test_an_error_of_reduce_reaches_the_caller(reducing: Reducing) -> None:
    """Inline, an exception in reduce() propagates as one in run() does."""
    reducing.then = fail
    with pytest.raises(ValueError, match="no"):
        outcome.Command().delay("none")

    assert recorded() == (Status.FAILED, "reduce", None)
    assert TaskRun.objects.get().result == "done"
    with pytest.raises(JobFailed, match="ValueError: no"):
        JobRun.objects.get().operation.result()


@in_every_database
def test_a_task_that_was_killed_before_reduce(
    container: Container, reducing: Reducing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its work was recorded: the retry only calls reduce()."""
    with monkeypatch.context() as dying:
        dying.setattr(Attempt, "end", lambda attempt, *args: attempt.heartbeat.stop())
        reducing.then = fail
        assert container.run("outcome", "none") == 1  # Nothing of this end is recorded.
    assert recorded()[0] == Status.RUNNING
    reducing.then, reducing.work = len, fail

    assert container.run("outcome", "none", attempt=1) == 0
    assert recorded() == (Status.SUCCEEDED, "", 1)


@pytest.fixture
def other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat containers that a job starts as separate processes."""
    monkeypatch.setattr(runner, "is_nested", lambda: False)


@pytest.mark.usefixtures("other_processes")
def test_a_retry_of_another_task_does_not_reduce(container: Container, reducing: Reducing) -> None:
    """A finished task has nothing to do while another task calls reduce()."""
    run = request("outcome")
    task(container, reducing, run, 0, "a")
    task(container, reducing, run, 1, "b")

    def retry(results: list[Any]) -> int:
        assert container.run("outcome", "none", run_id=str(run.pk), index=0, count=3, attempt=1) == 0
        return len(results)

    reducing.then = retry
    task(container, reducing, run, 2, "c")

    assert (len(reducing.calls), recorded()) == (1, (Status.SUCCEEDED, "", 3))


@in_every_database
@pytest.mark.usefixtures("other_processes")
def test_a_superseded_process_does_not_record_its_value(container: Container, reducing: Reducing) -> None:
    """Only the value of the process that took over is recorded."""

    def slowly(results: list[Any]) -> str:
        reducing.then = lambda results: "second"
        assert container.run("outcome", "none", attempt=1) == 0
        return "first"

    reducing.then = slowly
    container.run("outcome", "none")

    assert (len(reducing.calls), recorded()) == (2, (Status.SUCCEEDED, "", "second"))


@in_every_database
def test_a_superseded_process_leaves_the_run_to_the_other(container: Container, reducing: Reducing) -> None:
    """The process that took over is still in reduce()."""

    def supersede(results: list[Any]) -> str:
        JobRun.objects.update(reducer=uuid4())
        return "first"

    reducing.then = supersede
    assert container.run("outcome", "none") == 0

    assert recorded() == (Status.RUNNING, "", None)


def test_a_task_that_starts_again_discards_the_reduction(
    container: Container, reducing: Reducing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cloud Run may have more retries than the code declares: then reduce() is called for the new results."""
    monkeypatch.setattr(outcome.Command, "reduce_partial", True)
    run = request("outcome")
    for index, result in enumerate([fail, "b", "c"]):
        task(container, reducing, run, index, result, **LAST)
    assert recorded() == (Status.FAILED, "task", {"of": [None, "b", "c"]})

    task(container, reducing, run, 0, "a", attempt=3)
    assert recorded() == (Status.SUCCEEDED, "", {"of": ["a", "b", "c"]})


@in_every_database
def test_one_of_two_last_tasks_reduces(database: str, reducing: Reducing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both tasks record their work before either checks whether it is the last."""
    run, both = request("outcome"), Barrier(2)
    ending = Attempt._ending

    def meet(self: Attempt, *args: Any) -> Any:
        if not getattr(self, "has_met", False):
            self.has_met = True  # type: ignore[attr-defined]
            both.wait(60)
        return ending(self, *args)

    monkeypatch.setattr(Attempt, "_ending", meet)
    begun: list[bool] = []

    def work(index: int) -> None:
        try:
            with begin_reducing(run, index) as attempt:
                attempt.succeed(index)
                begins = attempt.begin_reduction()
                begun.append(begins)
                both.wait(60)
                if begins:
                    attempt.reduce("value")
        finally:
            connections[database].close()  # This thread's.

    threads = [Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(begun) == [False, True]
    assert recorded() == (Status.SUCCEEDED, "", "value")


def begin_reducing(run: JobRun, index: int) -> Any:
    given = CloudRunTask("outcome-test", EXECUTION, index, 0, 2, str(run.pk))
    start = Invocation("outcome", "test", ["outcome"], task=given, reduces=True)
    return record_attempt(start, outcome.Command().spec, Termination())


@pytest.mark.parametrize("skipped", [0, 2])
def test_skipped_tasks_have_no_result(
    container: Container, reducing: Reducing, monkeypatch: pytest.MonkeyPatch, skipped: int
) -> None:
    """With `lock_scope = "task"` a skipped task counts as done, even if it is the last one."""
    monkeypatch.setattr(outcome.Command, "lock_scope", "task", raising=False)
    run = request("outcome")
    acquire = locking._acquire_or_skip

    def skip(job: Any, spec: Any, options: Any, attempt: Attempt, *args: Any) -> Any:
        if attempt._task.index == skipped:
            return locking.LockSkipped("outcome")
        return acquire(job, spec, options, attempt, *args)

    monkeypatch.setattr(locking, "_acquire_or_skip", skip)
    for index in range(3):
        assert task(container, reducing, run, index, index) == 0

    expected = [None if index == skipped else index for index in range(3)]
    assert reducing.calls == [(expected, ())]
    assert recorded() == (Status.SUCCEEDED, "", {"of": expected})


def test_a_skipped_run_is_not_reduced(reducing: Reducing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "_acquire_or_skip", lambda *args: locking.LockSkipped("outcome"))
    assert outcome.Command().delay("none").result() is None

    assert (reducing.calls, JobRun.objects.get().status) == ([], Status.SKIPPED)


def test_jobs_without_reduce_are_unchanged(reducing: Reducing) -> None:
    assert echo.Command().delay(partner=7).result()["partner"] == 7
    assert (JobRun.objects.get().reduces, reducing.calls) == (False, [])
