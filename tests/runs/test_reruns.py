"""`rerun(failed_only=True)` repeats what has failed, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from threading import Barrier, Thread
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connections
from pytest_django import Settings

from cloudrun_jobs.exceptions import JobFailed, RerunRefused
from cloudrun_jobs.models import ItemChunk, ItemList, JobRun, Status, TaskRun
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.operations import ExecutionState
from cloudrun_jobs.runs import prune, reruns
from tests.backends.server import CloudRun
from tests.jobs.management.commands import outcome
from tests.runs.conftest import EXECUTION, Container, in_every_database, request, store_records

NEXT = "outcome-production-"


@pytest.fixture(params=["postgres"], autouse=True)
def database(request: pytest.FixtureRequest, settings: Settings, django_db_blocker: Any) -> Iterator[str]:
    """Store the records in one kind of database, except for tests that need each."""
    yield from store_records(request, settings, django_db_blocker)


class Job:
    """Controls `run()` of the job, and records the shares that it has done."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []
        self.failing: set[str] = set()

    def run(self) -> str:
        index, count = os.environ["CLOUD_RUN_TASK_INDEX"], os.environ["CLOUD_RUN_TASK_COUNT"]
        if index in self.failing:
            raise ValueError(f"no {index}")
        self.done.append((index, count))
        return f"{index} of {count}"


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Job:
    """Give the job `outcome` a run() that reads the index of its task, no retries, and a reduce()."""
    job = Job()
    monkeypatch.setattr(outcome.Command, "run", lambda self, **options: job.run())
    monkeypatch.setattr(outcome.Command, "reduce", lambda self, results: results, raising=False)
    monkeypatch.setattr(outcome.Command, "max_retries", 0)
    return job


def start(**values: Any) -> JobRun:
    given = {"argv": ["outcome", "none"], "environment": "production", "status": Status.SENT, **values}
    return request("outcome", **{"execution": EXECUTION, **given})


def execute(container: Container, run: JobRun, *, count: int, **variables: Any) -> list[int]:
    """Run the tasks of the run's execution, one after the other; return their exit statuses."""
    run.refresh_from_db()
    given = {"run_id": str(run.pk), "execution": run.execution, "count": count, **variables}
    codes = [container.run("outcome", "none", index=index, **given) for index in range(count)]
    run.refresh_from_db()
    return codes


def rerun(run: JobRun) -> JobRun:
    return JobRun.objects.get(pk=run.rerun(failed_only=True).run_id)


def record_chunks(run: JobRun, *statuses: str) -> ItemList:
    items = ItemList.objects.create(
        run=run, kind=ItemList.Kind.CLAIM, number=0, count=len(statuses), writer=run.pk
    )
    for index, status in enumerate(statuses):
        values = {"tries": 3, "worker": run.pk, "task_index": 0, "leased_until": Now()}
        ItemChunk.objects.create(list=items, start=index, size=1, items=[index], status=status, **values)
    JobRun.objects.filter(pk=run.pk).update(items_total=len(statuses))
    return items


@in_every_database
def test_as_many_tasks_as_failed(cloud: CloudRun, container: Container, job: Job) -> None:
    """Task i does the share of the i-th failed task, by the first run's task count, even in a rerun of a rerun."""
    run = start()
    job.failing = {"1", "3", "4"}
    assert execute(container, run, count=5) == [0, 1, 0, 1, 1]
    job.done, job.failing = [], {"3"}

    second = rerun(run)
    assert cloud.requests[0].overrides.task_count == 3
    assert (second.rerun_of, second.argv, second.overrides) == (run, run.argv, {"tasks": 3})
    assert execute(container, second, count=3) == [0, 1, 0]
    assert job.done == [("1", "5"), ("4", "5")]
    assert (second.status, second.result) == (Status.FAILED, ["1 of 5", None, "4 of 5"])
    job.done, job.failing = [], set()

    third = rerun(second)
    assert cloud.requests[1].overrides.task_count == 1
    assert execute(container, third, count=1) == [0]
    assert job.done == [("3", "5")]
    assert (third.status, third.result) == (Status.SUCCEEDED, [f"{index} of 5" for index in range(5)])
    with pytest.raises(RerunRefused, match="nothing has failed"):
        third.rerun(failed_only=True)


def test_partial_results_of_reruns(
    cloud: CloudRun, container: Container, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The indexes of failed tasks are those of the first run."""
    seen: list[Any] = []
    monkeypatch.setattr(outcome.Command, "reduce_partial", True)
    monkeypatch.setattr(outcome.Command, "reduce", lambda self, results: seen.append((results, self.failed_tasks)))
    run = start()
    job.failing = {"0", "2"}
    execute(container, run, count=3)
    job.failing = {"2"}
    execute(container, rerun(run), count=2)

    assert seen == [([None, "1 of 3", None], (0, 2)), (["0 of 3", "1 of 3", None], (2,))]


def test_tasks_without_a_share_end_at_once(
    cloud: CloudRun, container: Container, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cloud Run rejects fewer tasks than `task_parallelism`."""
    monkeypatch.setattr(outcome.Command, "tasks", 5, raising=False)
    monkeypatch.setattr(outcome.Command, "task_parallelism", 3, raising=False)
    run = start()
    job.failing = {"3"}
    execute(container, run, count=5)
    job.done, job.failing = [], set()

    again = rerun(run)
    assert cloud.requests[0].overrides.task_count == 3
    assert execute(container, again, count=3) == [0, 0, 0]
    assert (job.done, again.status) == ([("3", "5")], Status.SUCCEEDED)
    assert again.result == [f"{index} of 5" for index in range(5)]


def test_tasks_that_never_started_are_repeated(cloud: CloudRun, container: Container, job: Job) -> None:
    """After a cancellation, the cancelled task and those that never started are repeated."""
    run = start(task_count=4)
    assert container.run("outcome", "none", run_id=str(run.pk), count=4) == 0
    TaskRun.objects.create(run=run, index=2, worker=run.pk, status=Status.CANCELLED)
    JobRun.objects.filter(pk=run.pk).update(status=Status.CANCELLED)
    run.refresh_from_db()

    again = rerun(run)
    assert (again.shares["indexes"], again.shares["count"]) == ([1, 2, 3], 4)


@in_every_database
def test_failed_items_are_claimed_again(
    cloud: CloudRun, container: Container, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rerun has the run's task count, at most one task per chunk left; its results are appended."""
    run = start()
    execute(container, run, count=4)
    items = record_chunks(run, "failed", "done", "open", "done")
    JobRun.objects.filter(pk=run.pk).update(status=Status.FAILED, reason="items", result=None)
    run.refresh_from_db()

    again = rerun(run)
    assert cloud.requests[0].overrides.task_count == 2
    assert again.shares == {"origin": str(run.pk), "count": 4, "indexes": []}
    chunks = items.chunks.order_by("start").values_list("status", "tries", "worker", "leased_until")
    first, second, third, _ = chunks
    assert (first, second[:2], third) == (("open", 0, None, None), ("done", 3), ("open", 0, None, None))

    monkeypatch.setattr(outcome.Command, "run", lambda self, **options: f"claimed by {self._active.attempt.share}")
    assert container.run("outcome", "none", run_id=str(again.pk), count=2, execution=again.execution) == 0
    items.chunks.update(status="done")
    assert container.run("outcome", "none", run_id=str(again.pk), count=2, index=1, execution=again.execution) == 0
    again.refresh_from_db()
    claimed = f"claimed by Share(origin={run.pk!r}, index=None, count=4)"
    assert again.result == [*[f"{index} of 4" for index in range(4)], claimed]
    assert again.status == Status.SUCCEEDED


def test_items_that_fail_again_fail_the_rerun(cloud: CloudRun, container: Container, job: Job) -> None:
    run = start()
    execute(container, run, count=2)
    items = record_chunks(run, "failed", "done")
    JobRun.objects.filter(pk=run.pk).update(status=Status.FAILED, reason="items")
    run.refresh_from_db()
    again = rerun(run)
    items.chunks.filter(start=0).update(status="failed")
    execute(container, again, count=1)

    assert (again.status, again.reason) == (Status.FAILED, "items")
    assert rerun(again).shares == again.shares


def test_a_failed_reduce_is_repeated_alone(
    cloud: CloudRun, container: Container, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tasks have done their work: run() is not called."""
    run = start()
    with monkeypatch.context() as broken:
        broken.setattr(outcome.Command, "reduce", lambda self, results: 1 / 0)
        assert execute(container, run, count=2) == [0, 1]
    assert (run.status, run.reason) == (Status.FAILED, "reduce")
    job.done = []

    again = rerun(run)
    assert (cloud.requests[0].overrides.task_count, again.shares["indexes"]) == (1, [])
    assert execute(container, again, count=1) == [0]
    assert (job.done, again.status, again.result) == ([], Status.SUCCEEDED, ["0 of 2", "1 of 2"])


def finished(**values: Any) -> JobRun:
    run = start(**{"status": Status.FAILED, "task_count": 2, **values})
    for index, status in enumerate([Status.SUCCEEDED, Status.FAILED]):
        TaskRun.objects.create(run=run, index=index, worker=run.pk, status=status)
    return run


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda run: run.__dict__.update(status="running"), "it is running. Wait until it ends, or cancel it"),
        (
            lambda run: run.tasks.update(status="succeeded"),
            r"nothing has failed. rerun\(\) without failed_only repeats",
        ),
        (lambda run: run.tasks.all().delete(), r"no task has started. rerun\(\) without failed_only repeats"),
        (
            lambda run: run.__dict__.update(shares={"origin": EXECUTION_ID, "count": 2, "indexes": [0, 1]}),
            "the first run of its items was deleted. Start a new run",
        ),
    ],
    ids=["unfinished", "nothing failed", "never started", "pruned"],
)
def test_rerun_is_refused(cloud: CloudRun, job: Job, break_it: Callable[[JobRun], None], message: str) -> None:
    """The error says why, and nothing is started."""
    run = finished()
    break_it(run)

    with pytest.raises(RerunRefused, match=message):
        run.rerun(failed_only=True)
    assert (cloud.requests, JobRun.objects.count()) == ([], 1)


EXECUTION_ID = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize("status", [Status.RUNNING, Status.FAILED])
def test_a_second_rerun_is_refused(cloud: CloudRun, job: Job, status: Status) -> None:
    """The record of the run does not show what the other rerun has done."""
    run = finished()
    first = rerun(run)
    JobRun.objects.filter(pk=first.pk).update(status=status)

    expected = "repeats its failed tasks. Wait" if status == Status.RUNNING else "has repeated its failed tasks"
    with pytest.raises(RerunRefused, match=f"run {first.pk} {expected}"):
        run.rerun(failed_only=True)
    assert len(cloud.requests) == 1


def test_a_run_whose_command_was_deleted_is_refused(cloud: CloudRun) -> None:
    run = request("gone", argv=["gone"], status=Status.FAILED)
    with pytest.raises(Exception, match="the command 'gone' no longer exists"):
        run.rerun(failed_only=True)


@pytest.mark.parametrize("database", ["postgres", "mariadb"], indirect=True)  # SQLite has one writer at a time.
def test_one_of_two_concurrent_reruns_starts(
    cloud: CloudRun, job: Job, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have seen that no other rerun exists."""
    run, both, results = finished(), Barrier(2), []
    claim = reruns.claim

    def meet(new: JobRun) -> None:
        both.wait(60)
        claim(new)

    monkeypatch.setattr(reruns, "claim", meet)

    def work() -> None:
        try:
            results.append(JobRun.objects.get(pk=run.pk).rerun(failed_only=True))
        except RerunRefused as error:
            results.append(str(error))
        finally:
            connections[database].close()

    threads = [Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    [started] = run.reruns.all()
    assert len(cloud.requests) == 1
    assert [result for result in results if isinstance(result, str) and str(started.pk) in result]


def test_an_inline_rerun_repeats_the_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inline, a run has one task."""
    monkeypatch.setattr(outcome.Command, "run", lambda self, **options: 1 / 0)
    with suppress(ZeroDivisionError):
        outcome.Command().delay("none")
    run = JobRun.objects.get()
    monkeypatch.setattr(outcome.Command, "run", lambda self, **options: self._active.attempt.share.index)

    again = rerun(run)
    assert (again.status, again.result, again.rerun_of) == (Status.SUCCEEDED, 0, run)
    with pytest.raises(RerunRefused, match="has repeated"):
        run.rerun(failed_only=True)


def test_several_shares_run_one_after_the_other_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each task has its own share, also for a job that divides its work itself."""
    run, seen = finished(environment="test", task_count=4), []
    run.tasks.update(status=Status.FAILED)
    TaskRun.objects.create(run=run, index=3, worker=run.pk, status=Status.SUCCEEDED)

    def work(self: outcome.Command, **options: Any) -> list[int]:
        seen.append(tuple(os.environ[f"CLOUD_RUN_TASK_{name}"] for name in ("INDEX", "COUNT")))
        return list(self.shard(range(8)))

    monkeypatch.setattr(outcome.Command, "run", work)
    again = rerun(run)

    assert seen == [("0", "4"), ("1", "4"), ("2", "4")]
    assert (again.status, again.return_value) == (Status.SUCCEEDED, [[0, 4], [1, 5], [2, 6]])


def test_elements_are_repeated(cloud: CloudRun, job: Job, container: Container) -> None:
    """Failed elements of `delay_many()` run with their own arguments; without `failed_only`, all elements run."""
    given = [{"ending": ending} for ending in ("text", "none", "error")]
    run = JobRun.objects.get(pk=outcome.Command().delay_many(given).run_id)
    run.tasks.filter(index=0).update(status=Status.SUCCEEDED, result="first")
    run.tasks.exclude(index=0).update(status=Status.FAILED)
    JobRun.objects.filter(pk=run.pk).update(status=Status.FAILED, task_count=3)
    run.refresh_from_db()

    again = rerun(run)
    assert (again.elements, again.shares["indexes"], cloud.requests[1].overrides.task_count) == (2, [1, 2], 2)
    assert [task.argv[-1] for task in again.tasks.order_by("index")] == ["none", "error"]
    whole = JobRun.objects.get(pk=run.rerun().run_id)
    assert (whole.elements, whole.shares, whole.tasks.count()) == (3, None, 3)


def test_elements_that_were_not_sent_are_repeated(cloud: CloudRun) -> None:
    """All of them, though no task of the run has started."""
    run = JobRun.objects.get(pk=outcome.Command().delay_many([{"ending": "text"}, {"ending": "none"}]).run_id)
    JobRun.objects.filter(pk=run.pk).update(status=Status.FAILED, reason="not_sent", execution=None)
    run.refresh_from_db()

    assert [task.argv[-1] for task in rerun(run).tasks.order_by("index")] == ["text", "none"]


def test_elements_without_a_share_are_not_counted(cloud: CloudRun) -> None:
    """Cloud Run counts the tasks that it started in addition, which have no arguments."""
    run = JobRun.objects.get(pk=outcome.Command().delay_many([{"ending": "text"}, {"ending": "none"}]).run_id)
    state = ExecutionState(status="failed", reason="exit_code", task_count=3, succeeded_count=1, failed_count=2)
    assert run.apply_state(state, run.execution)
    run.refresh_from_db()

    assert (run.task_count, rerun(run).elements) == (2, 2)


def test_elements_with_failed_items_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each `claim()`, what is left: the other elements, and the other items, are done."""
    done: list[tuple[str, str]] = []

    def run(self: outcome.Command, ending: str, **options: Any) -> None:
        for item in self.claim(["a", "b"], item_retries=0):
            with self.item(item):
                done.append((ending, item))
                assert len(done) != 4

    monkeypatch.setattr(outcome.Command, "run", run)
    failed = outcome.Command().delay_many([{"ending": ending} for ending in ("text", "none")])
    with pytest.raises(JobFailed, match='1 item failed: "b"'):
        failed.result()

    again = rerun(failed.run)
    assert (again.status, again.elements, done[4:]) == (Status.SUCCEEDED, 1, [("none", "b")])


def test_elements_in_this_process_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, however many have failed."""
    monkeypatch.setattr(outcome.Command, "reduce", lambda self, results: results, raising=False)
    failed = outcome.Command().delay_many([{"ending": ending} for ending in ("text", "error", "exit")])
    with pytest.raises(JobFailed, match="2 of 3 tasks did not succeed: task 1 "):
        failed.result()
    monkeypatch.setattr(outcome.Command, "run", lambda self, **options: "mended")

    assert failed.run.rerun(failed_only=True).result() == ["all done", "mended", "mended"]


@in_every_database
def test_prune_keeps_a_run_until_its_rerun_is_deleted(cloud: CloudRun, job: Job) -> None:
    run = finished()
    again = rerun(run)
    long_ago = Now() - timedelta(days=90)
    JobRun.objects.update(created_at=long_ago, finished_at=long_ago)
    prunable = prune.prunable("outcome", age=timedelta(days=30), keep=0)

    assert prune.delete(prunable) == 0
    JobRun.objects.filter(pk=again.pk).update(status=Status.FAILED)
    assert prune.delete(prunable) == 2


def test_command_line(cloud: CloudRun, job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints the id of the new run; RUN is as in `show`."""
    run = finished()
    call_command("cloudrun_jobs", "rerun", str(run.pk)[:8], "--failed")
    printed = capsys.readouterr()
    again = run.reruns.get()

    assert printed.out == f"{again.pk}\n"
    assert f"`manage.py cloudrun_jobs show {str(again.pk)[:8]}`" in printed.err
    with pytest.raises(CommandError, match="cannot be rerun"):
        call_command("cloudrun_jobs", "rerun", EXECUTION, "--failed")
    call_command("cloudrun_jobs", "rerun", EXECUTION)
    assert JobRun.objects.get(pk=capsys.readouterr().out.strip()).shares is None


@in_every_database
def test_claimed_items_that_failed_are_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inline, only failed items are done again; the error of the first run still lists them."""
    done, failing = [], {"b", "d"}

    def run(self: outcome.Command, **options: Any) -> dict[str, int]:
        for item in self.claim(["a", "b", "c", "d"], item_retries=1):
            with self.item(item):
                if item in failing:
                    raise ValueError(f"no {item}")
                done.append(item)
        return self.claims._asdict()

    monkeypatch.setattr(outcome.Command, "run", run)
    monkeypatch.setattr(outcome.Command, "reduce", lambda self, results: results, raising=False)
    with pytest.raises(JobFailed, match=r'2 items failed: "b" \(ValueError: no b\); "d" \(ValueError: no d\)'):
        outcome.Command().delay("none")
    first = JobRun.objects.get()
    assert (first.status, first.reason) == (Status.FAILED, "items")
    assert first.result == [{"done": 2, "failed": 2, "left": 0}]
    assert (done, rerun_fails(first)) == (["a", "c"], True)

    failing.clear()
    again = rerun(JobRun.objects.get(rerun_of=first))
    assert (done, again.status) == (["a", "c", "b", "d"], Status.SUCCEEDED)
    assert again.result[-1] == {"done": 4, "failed": 0, "left": 0}


def rerun_fails(run: JobRun) -> bool:
    """Return True if the same items fail again."""
    with pytest.raises(JobFailed, match="2 items failed"):
        run.rerun(failed_only=True)
    return True


def test_shares_of_failed_tasks_are_done_again(
    cloud: CloudRun, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the items of the failed tasks are done; a task without a share has no items."""
    done: list[int] = []
    failing = {1, 3}

    def run(self: outcome.Command, **options: Any) -> list[int]:
        own = list(self.shard(range(10)))
        if self._active.attempt.share.index in failing:
            raise ValueError("no")
        done.extend(own)
        return own

    monkeypatch.setattr(outcome.Command, "run", run)
    monkeypatch.setattr(outcome.Command, "max_retries", 0)
    monkeypatch.setattr(outcome.Command, "tasks", 4, raising=False)
    monkeypatch.setattr(outcome.Command, "task_parallelism", 3, raising=False)
    first = start()
    execute(container, first, count=4)
    assert len(done) < 10
    failing.clear()
    again = rerun(first)

    assert execute(container, again, count=3) == [0, 0, 0]
    assert (sorted(done), again.status) == (list(range(10)), Status.SUCCEEDED)
