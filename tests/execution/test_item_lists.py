"""The list of a call: one task writes it, the other tasks read it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any
from uuid import uuid4

import pytest
from django.db import connections, transaction

from cloudrun_jobs.execution import heartbeat
from cloudrun_jobs.execution.attempt import Attempt
from cloudrun_jobs.execution.sharding import lists
from cloudrun_jobs.models import ItemList, JobRun, TaskRun
from cloudrun_jobs.models.functions import Now
from tests.runs.conftest import begin, request
from tests.waiting import wait_for

SHARD = ItemList.Kind.SHARD
COMPLETE = {"count": 3, "digest": "abc", "bounds": [1, 2]}


@pytest.fixture
def run() -> JobRun:
    return request("outcome")


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "POLL_MAXIMUM_SECONDS", 0.2)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


@contextmanager
def task(run: JobRun, index: int, attempt: int = 0) -> Iterator[Attempt]:
    """Begin an attempt of one of eight tasks."""
    with begin(run, index=index, attempt=attempt, count=8, command="outcome") as begun:
        assert isinstance(begun, Attempt)
        yield begun


def write(attempt: Attempt, compute: Callable[[ItemList], Any], number: int = 0) -> ItemList:
    return lists.write_once(attempt, SHARD, number, compute, raise_if_interrupted=lambda: None)


def write_at_once(attempt: Attempt, compute: Callable[[ItemList], Any]) -> ItemList:
    """Write the list, or fail if the task would have to wait."""
    polls = iter([None])
    return lists.write_once(attempt, SHARD, 0, compute, raise_if_interrupted=lambda: next(polls))


def in_thread(work: Callable[[], Any]) -> Any:
    try:
        return work()
    finally:
        connections.close_all()  # This thread's.


def test_one_task_writes_and_all_read(run: JobRun, pool: ThreadPoolExecutor) -> None:
    """If eight tasks call at once, one computes the list and all get it."""
    barrier, computed = threading.Barrier(8), []

    def work(index: int) -> Any:
        with task(run, index) as attempt:
            barrier.wait(30)
            items = write(attempt, lambda items: computed.append(index) or COMPLETE)
        return items.count, items.digest, items.bounds, items.writing_until

    found = [pool.submit(in_thread, lambda index=index: work(index)) for index in range(8)]

    assert [each.result() for each in found] == [(3, "abc", [1, 2], None)] * 8
    assert len(computed) == 1
    assert ItemList.objects.get().writing_until is None


def test_each_call_has_its_own_list(run: JobRun) -> None:
    """The lists of several calls, and of calls of another kind, are separate."""
    with task(run, 0) as attempt:
        write(attempt, lambda items: {"count": 1})
        write(attempt, lambda items: {"count": 2}, number=1)
        lists.record(attempt, ItemList.Kind.CLAIM, 0, count=3)

        assert [write(attempt, dict, number=number).count for number in (0, 1)] == [1, 2]
    assert ItemList.objects.count() == 3


def test_error_of_the_writer_lets_another_task_write(run: JobRun) -> None:
    """The task whose computation fails gets its error; the next one writes without waiting for the lease."""
    with task(run, 0) as failing, task(run, 1) as other:
        with pytest.raises(ZeroDivisionError):
            write(failing, lambda items: 1 / 0)

        assert write_at_once(other, lambda items: COMPLETE).writer == other.worker


def test_retry_of_the_writer_takes_over(run: JobRun) -> None:
    """The retry of the task that was killed as the writer does not wait for the lease of its earlier attempt."""
    with ExitStack() as killed:
        first = killed.enter_context(task(run, 0))
        lists.record(first, SHARD, 0, writing_until=Now() + lists.LEASE)
        with task(run, 0, attempt=1) as retry:
            assert write_at_once(retry, lambda items: COMPLETE).writer == retry.worker


def test_expired_lease_is_taken_over(run: JobRun) -> None:
    """A task takes over from a frozen writer whose lease has expired; the frozen writer's list is dropped."""
    with task(run, 0) as frozen, task(run, 1) as other:

        def compute(items: ItemList) -> Any:
            ItemList.objects.update(writing_until=Now() - lists.LEASE)
            assert write_at_once(other, compute_by_other(items)).digest == "abc"
            return {"count": 99}

        def compute_by_other(items: ItemList) -> Any:
            def compute(own: ItemList) -> Any:
                lists.renew(own)
                with pytest.raises(lists.ListTakenOver):
                    lists.renew(items)
                return COMPLETE

            return compute

        assert write(frozen, compute).digest == "abc"
    assert ItemList.objects.get().count == 3


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
def test_lease_is_renewed(run: JobRun, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The heartbeat renews the lease of a task that computes for longer; the other tasks wait."""
    monkeypatch.setattr(lists, "LEASE", lists.LEASE / 20)
    monkeypatch.setattr(heartbeat, "PROGRESS_INTERVAL", 0.05)
    with task(run, 0) as writer, task(run, 1) as other:
        waiting: list[Future[ItemList]] = []

        def compute(items: ItemList) -> Any:
            waiting.append(pool.submit(in_thread, lambda: write(other, lambda items: {"count": 99})))
            first = ItemList.objects.get().writing_until
            wait_for(lambda: ItemList.objects.get().writing_until > first + lists.LEASE)
            return COMPLETE

        write(writer, compute)

        assert waiting[0].result().count == 3


def test_waiting_task_is_interrupted(run: JobRun) -> None:
    """A task that waits for the list can be interrupted."""
    with task(run, 0) as writer, task(run, 1) as other:
        lists.record(writer, SHARD, 0, writing_until=Now() + lists.LEASE)

        def interrupt(pending: Any = iter((None, KeyboardInterrupt))) -> None:  # noqa: B008  (one test's own)
            if (error := next(pending)) is not None:
                raise error

        with pytest.raises(KeyboardInterrupt):
            lists.write_once(other, SHARD, 0, dict, raise_if_interrupted=interrupt)


def test_record_of_the_first_task_stays(run: JobRun) -> None:
    """A task that records different values gets those of the first task."""
    with task(run, 0) as first, task(run, 1) as second:
        lists.record(first, SHARD, 0, count=3, digest="abc")

        assert lists.record(second, SHARD, 0, count=4, digest="def").digest == "abc"


@pytest.mark.parametrize("database", ["postgres", "mariadb"], indirect=True)
def test_transaction_of_the_job_hides_nothing(run: JobRun, database: str) -> None:
    """A list that is recorded during a transaction of the job is committed at once, even if that rolls back."""
    with task(run, 0) as attempt, transaction.atomic(using=database):
        lists.record(attempt, SHARD, 0, count=3)
        transaction.set_rollback(True, using=database)

    assert ItemList.objects.get().count == 3


def test_event_loop_may_record(run: JobRun) -> None:
    """A coroutine, in which Django allows no queries, can record a list."""
    import asyncio

    async def record(attempt: Attempt) -> ItemList:
        return lists.record(attempt, SHARD, 0, count=3)

    with task(run, 0) as attempt:
        assert asyncio.run(record(attempt)).count == 3


def test_deleted_run_has_no_lists(run: JobRun) -> None:
    """The lists are deleted with the run."""
    with task(run, 0) as attempt:
        lists.record(attempt, SHARD, 0, count=3)
    TaskRun.objects.update(worker=uuid4())
    JobRun.objects.all().delete()

    assert not ItemList.objects.exists()
