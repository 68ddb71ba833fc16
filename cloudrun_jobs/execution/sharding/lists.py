"""Record the list of a `shard()` or `claim()` call once per run: one task writes it, the other tasks read it."""

from __future__ import annotations

import os
from asyncio import get_running_loop
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from datetime import timedelta
from functools import partial
from threading import Thread
from typing import Any, TypeVar

from django.db import Error, IntegrityError, connections
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.expressions import Combinable

from cloudrun_jobs.backoff import attempts
from cloudrun_jobs.exceptions import RecordUnavailable
from cloudrun_jobs.execution import deadlines
from cloudrun_jobs.execution.attempt import Attempt
from cloudrun_jobs.models import ItemList, TaskRun
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.runs import database

LEASE = timedelta(seconds=60)  # Of the writer.
POLL_INITIAL_SECONDS, POLL_MAXIMUM_SECONDS = 0.1, 5.0

T = TypeVar("T")


class ListTakenOver(Exception):
    """Another task has taken over the writing of the list."""


def record(attempt: Attempt, kind: ItemList.Kind, number: int, **values: Any) -> ItemList:
    """Return the list of a call. The first task to call this records the list with its values."""
    return commit(attempt, lambda: _find_or_insert(attempt, kind, number, values))


def write_once(
    attempt: Attempt,
    kind: ItemList.Kind,
    number: int,
    compute: Callable[[ItemList], Mapping[str, Any]],
    *,
    raise_if_interrupted: Callable[[], object],
) -> ItemList:
    """Return the complete list of a call. One task computes its values, including `count`; the other tasks wait.

    That task has a lease, which its heartbeat renews. If it dies or `compute` raises, another task takes over.
    So rows that `compute` writes may exist already. It must write them in transactions that begin with `renew()`.
    """
    pauses = attempts(None, initial=POLL_INITIAL_SECONDS, maximum=POLL_MAXIMUM_SECONDS)
    while True:
        next(pauses)
        raise_if_interrupted()
        items = commit(attempt, partial(_acquire, attempt, kind, number))
        if items.count is not None:
            return items
        if items.writer == attempt.worker:
            with suppress(ListTakenOver):
                return _write(attempt, items, compute)


def renew(items: ItemList) -> None:
    """Renew the writer's lease. In a transaction, this also blocks a takeover until the commit.

    Raises `ListTakenOver`.
    """
    if not _extend(items):
        raise ListTakenOver


def commit(attempt: Attempt, work: Callable[[], T], seconds: float = deadlines.RECORD_START_LIMIT_SECONDS) -> T:
    """Call `work` on the records, commit its changes, and return its result.

    `work` is retried while the database is unavailable. In a transaction of the job, which would hide the
    changes, and in an event loop, it runs in a thread with its own connection.
    """
    retried = partial(database.retry_until_available, work, seconds=seconds)
    if attempt.in_transaction or not (database.in_transaction() or in_event_loop()):
        return retried()
    future: Future[T] = Future()
    Thread(target=_resolve, args=(future, retried), name="cloudrun_jobs records", daemon=True).start()
    return future.result()


def _resolve(future: Future[T], work: Callable[[], T]) -> None:
    try:
        try:
            result = work()
        finally:
            connections.close_all()  # This thread's.
    except BaseException as error:  # noqa: BLE001  (raised in the calling thread)
        future.set_exception(error)
    else:
        future.set_result(result)


def in_event_loop() -> bool:
    """Return True if this thread runs an event loop."""
    try:
        get_running_loop()
    except RuntimeError:
        return False
    return True


def blocks_event_loop() -> bool:
    """Return True if Django rejects queries in this thread, because it runs an event loop."""
    return in_event_loop() and not os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")


def _find_or_insert(attempt: Attempt, kind: ItemList.Kind, number: int, values: Mapping[str, Any]) -> ItemList:
    lists = ItemList.objects.filter(run=attempt.share.origin, kind=kind, number=number)
    if items := lists.first():
        return items
    row = ItemList(run_id=attempt.share.origin, kind=kind, number=number, writer=attempt.worker, **values)
    try:
        database.insert(row)
    except IntegrityError:
        if items := lists.first():
            return items
        raise
    return row


def _acquire(attempt: Attempt, kind: ItemList.Kind, number: int) -> ItemList:
    """Return the list. This task becomes its writer if no live task writes it."""
    items = _find_or_insert(attempt, kind, number, {"writing_until": Now() + LEASE})
    if items.count is None:
        free: Combinable | Q = Q(writer=attempt.worker) | Q(writing_until__lt=Now())
        if attempt.run.pk == attempt.share.origin:
            # The writers are tasks of this run: a task that has ended or was superseded no longer writes.
            live = TaskRun.objects.filter(run=attempt.run.pk, worker=OuterRef("writer"), finished_at=None)
            free |= ~Exists(live)
        unfinished = ItemList.objects.filter(free, pk=items.pk, count=None)
        if unfinished.update(writer=attempt.worker, writing_until=Now() + LEASE):
            items.writer = attempt.worker
    return items


def _write(attempt: Attempt, items: ItemList, compute: Callable[[ItemList], Mapping[str, Any]]) -> ItemList:
    attempt.heartbeat.renew(items, LEASE.total_seconds() / 3, partial(_extend, items))
    try:
        values = {**compute(items), "writing_until": None}
        commit(attempt, partial(_complete, items, values))
    except BaseException:
        with suppress(Error, RecordUnavailable):
            commit(attempt, partial(_own(items).update, writing_until=Now()), seconds=0.0)
        raise
    finally:
        attempt.heartbeat.forget(items)
    for name, value in values.items():
        setattr(items, name, value)
    return items


def _complete(items: ItemList, values: Mapping[str, Any]) -> None:
    # The reply to an earlier attempt at this statement may have been lost.
    written = ItemList.objects.filter(pk=items.pk, writer=items.writer).exclude(count=None)
    if not (_own(items).update(**values) or written.exists()):
        raise ListTakenOver


def _extend(items: ItemList) -> bool:
    return bool(_own(items).update(writing_until=Now() + LEASE))


def _own(items: ItemList) -> QuerySet[ItemList]:
    """Return the row of the list, if this task is still its writer."""
    return ItemList.objects.filter(pk=items.pk, writer=items.writer, count=None)
