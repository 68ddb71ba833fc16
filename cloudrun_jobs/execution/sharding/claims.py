"""Hand out the items of a run to its tasks as they become free: `claim()`, `item()` and `claims`."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from functools import partial
from operator import index
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from weakref import ref

from django.db import DEFAULT_DB_ALIAS, Error, transaction

from cloudrun_jobs import environ, signals
from cloudrun_jobs.backoff import attempts
from cloudrun_jobs.exceptions import InvalidItems, JobInterrupted, RecordTablesMissing, RecordUnavailable
from cloudrun_jobs.execution import deadlines
from cloudrun_jobs.execution.attempt import Attempt
from cloudrun_jobs.execution.outcome import class_name_of, message_of
from cloudrun_jobs.execution.progress import MAX_TEXT, report_items
from cloudrun_jobs.execution.secret_options import mask_error
from cloudrun_jobs.execution.sharding import items as sources
from cloudrun_jobs.execution.sharding import lists, writing
from cloudrun_jobs.execution.sharding.chunks import Chunk, Chunks
from cloudrun_jobs.models import Claims, ItemList, JobRun
from cloudrun_jobs.runs import database

if TYPE_CHECKING:
    from cloudrun_jobs.execution.active import ActiveRun
    from cloudrun_jobs.spec.command import JobCommand

MIN_LEASE_SECONDS = 1
RENEWAL_INTERVAL = 20.0  # seconds, or a third of a shorter lease
WAIT_INITIAL_SECONDS, WAIT_MAXIMUM_SECONDS = 0.05, 2.0  # between two searches for a free chunk
REPORT_INTERVAL = 0.1  # seconds
RELEASE_LIMIT_SECONDS = 10.0
RELEASE_AFTER_SIGTERM_LIMIT_SECONDS = 2.0
MAX_COUNT = 2**31 - 1  # The largest value of the columns.

NO_LOOP = "Call item() in the body of the loop over claim(), once for each item."
ALL_TAKEN = f"list() and ThreadPoolExecutor.map() take all items from the loop at once. {NO_LOOP}"

NOTHING = object()


class Options(NamedTuple):
    """The validated arguments of a `claim()`."""

    batch: int
    lease: float  # seconds
    item_retries: int


def claim(
    job: JobCommand, items: Any, *, batch: int, lease: float | timedelta, item_retries: int
) -> Iterator[Any]:
    """Return the iterator of `CloudRunJobs.claim()`. Raises `InvalidItems`."""
    call = f"{job.command_name}: claim()"
    source = sources.source(call, items)
    options = Options(
        _count(call, "batch", batch, 1), _seconds(call, lease), _count(call, "item_retries", item_retries, 0)
    )
    _refuse_event_loop(call)
    active: ActiveRun | None = job._active
    if active is None or active.attempt is None:
        return (item for item, _ in sources.encoded(call, source))
    if active.claims is not None:
        active.claims.end_abandoned(call)
    active.claims = ClaimLoop(job, active, active.attempt, call, source, options)
    return active.claims.iterator()


def item(job: JobCommand, value: Any, *, atomic: bool | str) -> AbstractContextManager[None]:
    """Return the context manager of `CloudRunJobs.item()`. Raises `InvalidItems`."""
    call = f"{job.command_name}: item()"
    using = DEFAULT_DB_ALIAS if atomic is True else atomic or None
    if using is not None and using != database.database_alias():
        alias = database.database_alias()
        message = f"{call}: expected atomic to name the database of the run records, {alias!r}, got {using!r}."
        hint = f"If the item writes to the database {alias!r}, pass atomic={alias!r}."
        raise InvalidItems(message, hint=hint)
    active: ActiveRun | None = job._active
    if active is None or active.attempt is None:
        return nullcontext() if using is None else transaction.atomic(using=using)
    if active.claims is None:
        raise InvalidItems(f"{call}: no loop over claim() is open.", hint=NO_LOOP)
    return active.claims.item(call, value, using)


def claims(job: JobCommand) -> Claims:
    """Return the value of `CloudRunJobs.claims`."""
    active: ActiveRun | None = job._active
    if active is None or active.attempt is None:
        return Claims(0, 0, 0)
    if lists.blocks_event_loop():
        message = f"{job.command_name}: claims: an event loop is running, which a query would block."
        raise InvalidItems(message, hint="Use `await sync_to_async(lambda: self.claims)()`.")
    return writing.counts(active.attempt.share.origin, active.claims.chunk if active.claims else None)


class ClaimLoop:
    """One loop over `claim()`: the chunk that this task holds, and the state of its current item."""

    def __init__(
        self,
        job: JobCommand,
        active: ActiveRun,
        attempt: Attempt,
        call: str,
        source: Iterable[Any],
        options: Options,
    ) -> None:
        self._job, self._active, self._attempt, self._call, self._options = job, active, attempt, call, options
        self._refuse_transaction()
        self.chunk: Chunk | None = None
        self._value: Any = NOTHING  # The latest item.
        self._is_current = False  # Whether the item at the cursor is handed out, and neither done nor failed.
        self._error: Exception | None = None  # The failure of the item at the cursor.
        self._is_over = False
        self._pid = os.getpid()
        self._done = active.claims.done if active.claims else attempt.recorded_progress
        self._reported_at = -REPORT_INTERVAL
        write = partial(writing.write, attempt, call, source, options.batch)
        number = active.next_call(ItemList.Kind.CLAIM)
        self._list = lists.write_once(
            attempt, ItemList.Kind.CLAIM, number, write, raise_if_interrupted=active.raise_if_interrupted
        )
        self._total = lists.commit(attempt, partial(writing.note_total, attempt))
        self._chunks = Chunks(attempt, self._list, options.lease)
        if attempt.is_retry:
            self._chunks.take_over()

    @property
    def done(self) -> int:
        """The number of items that this task has done in this run."""
        return self._done

    def iterator(self) -> _ClaimedItems:
        """Return the iterator of the loop. The loop has been left once the iterator is garbage-collected."""
        iterator = _ClaimedItems(self)
        self._iterator = ref(iterator)
        interval = min(RENEWAL_INTERVAL, self._options.lease / 3)
        self._attempt.heartbeat.renew(self, interval, self._renew)
        return iterator

    def end_abandoned(self, call: str) -> None:
        """End a loop that was left early. Raises `InvalidItems` if it is still open."""
        if self._is_over:
            return
        if self._iterator() is not None:
            hint = "End that loop first: tasks in different loops would wait for each other's items."
            raise InvalidItems(f"{call}: another loop over claim() is open.", hint=hint)
        self.close(None)

    def next(self) -> Any:
        """Return the next item. The previous one is done, unless it failed."""
        if self._is_over:
            raise StopIteration
        self._refuse_transaction()
        self._complete_current()
        self._raise_if_interrupted()
        chunk = self.chunk
        if chunk is None or chunk.cursor == chunk.size or not self._holds(chunk) or self._error is not None:
            chunk = self._next_chunk()
        if chunk is None:
            self._end()
            raise StopIteration
        self._is_current = True
        value = self._value = chunk.items[chunk.cursor]
        self._report(value)
        return value

    @contextmanager
    def item(self, call: str, value: Any, using: str | None) -> Iterator[None]:
        """Run the block for the current item: keep its error; with `using`, save the cursor in its transaction."""
        chunk = self.chunk
        if not self._is_current or chunk is None or chunk.items[chunk.cursor] != value:
            raise self._wrong_item(call, value)
        self._refuse_transaction_around_item(call, using)
        try:
            with nullcontext() if using is None else self._saving(chunk, using):
                yield
        except _ChunkLost:
            self._drop(chunk)
        except Exception as error:
            if not self._is_current:
                raise  # An on_commit() hook raised it: the item is done.
            self._error, self._is_current = error, False
        else:
            if using is None:
                self._refuse_transaction_around_item(call, using)  # The block may have left one open.
            self._complete_current()

    def _wrong_item(self, call: str, value: Any) -> InvalidItems:
        if self._is_over:
            return InvalidItems(f"{call}: the loop over claim() has ended.", hint=ALL_TAKEN)
        if not self._is_current and self._value == value:
            return InvalidItems(f"{call}: the item {value!r:.100} has ended already.", hint=NO_LOOP)
        return InvalidItems(f"{call}: expected the current item of claim(), got {value!r:.100}.", hint=ALL_TAKEN)

    @contextmanager
    def _saving(self, chunk: Chunk, using: str) -> Iterator[None]:
        """Save the cursor in the transaction of the block, which is rolled back if the chunk is lost."""
        is_done = False
        try:
            with transaction.atomic(using=using):
                yield
                is_done = True
                self._advance(chunk)
        except Exception as error:
            if not is_done or isinstance(error, _ChunkLost) or not self._chunks.is_saved(chunk):
                raise
            # The item is done: the reply to the commit was lost, or an on_commit() hook failed.
            self._complete_current()
            if not isinstance(error, Error):
                raise

    def _advance(self, chunk: Chunk) -> None:
        if not self._chunks.advance(chunk):
            raise _ChunkLost

    def close(self, error: BaseException | None) -> None:
        """End the loop: save the cursor and free the chunk. An `Exception` is one of the current item."""
        if self._is_over or os.getpid() != self._pid:
            return
        if self._is_current and isinstance(error, Exception):
            self._error = error
        seconds = RELEASE_LIMIT_SECONDS
        if isinstance(error, JobInterrupted):
            seconds = RELEASE_AFTER_SIGTERM_LIMIT_SECONDS
        self._attempt.heartbeat.forget(self)
        self._is_over, self._is_current = True, False
        if not self._attempt.in_transaction:
            database.rollback_leftover_transaction()
        try:
            self._record_failure(seconds)
            self._chunks.release(self.chunk, seconds)
        except (Error, RecordUnavailable, RecordTablesMissing) as failed:
            # The lease expires anyway.
            signals.run_record_failed.send_robust(JobRun, run=self._attempt.run, error=failed)
        self.chunk = None
        self._report("", is_last=True)

    def _end(self) -> None:
        self._attempt.heartbeat.forget(self)
        self._is_over = True
        self._report("", is_last=True)

    def _next_chunk(self) -> Chunk | None:
        """Finish the chunk, and return the next one; wait while other tasks hold all unfinished chunks."""
        self._record_failure(deadlines.RECORD_START_LIMIT_SECONDS)
        finished = self.chunk
        if finished is not None and finished.cursor < finished.size and not finished.is_lost:
            return finished
        if finished is not None and finished.is_lost:
            finished = None
        for _ in attempts(None, initial=WAIT_INITIAL_SECONDS, maximum=WAIT_MAXIMUM_SECONDS):
            self.chunk = chunk = self._chunks.finish_and_take(finished)
            if chunk is not None and chunk.cursor == chunk.size:
                finished = chunk  # Its worker died before it could finish the chunk.
                continue
            if chunk is not None or not self._chunks.has_open:
                return chunk
            finished = None
            self._raise_if_interrupted()
        raise AssertionError("unreachable")

    def _record_failure(self, seconds: float) -> None:
        """Record that the item at the cursor has failed, if it has."""
        error, self._error, chunk = self._error, None, self.chunk
        if error is None or chunk is None:
            return
        mask_error(error)
        values = {"error_class": class_name_of(error), "error_message": message_of(error)}
        retries, value = self._options.item_retries, chunk.items[chunk.cursor]
        if not self._chunks.fail(chunk, values, retries, seconds):
            self._drop(chunk)
            return
        tries, is_final = chunk.tries + 1, chunk.tries >= retries
        if chunk.size == 1:
            self.chunk = None
        else:
            chunk.cursor += 1
        counts = {"tries": tries, "max_tries": retries + 1}
        self._send(signals.item_failed, item=value, error=error, is_final=is_final, **counts)

    def _complete_current(self) -> None:
        if self._is_current and self.chunk is not None:
            self._is_current = False
            self.chunk.cursor += 1
            self._done += 1

    def _holds(self, chunk: Chunk) -> bool:
        """Return True if the chunk is not lost. If the lease may have expired, query the database."""
        if not chunk.is_lost and time.monotonic() >= chunk.leased_until:
            lists.commit(self._attempt, partial(self._chunks.renew, chunk))
        if chunk.is_lost:
            self._drop(chunk)
        return not chunk.is_lost

    def _drop(self, chunk: Chunk) -> None:
        """Drop a lost chunk: another task has taken its items."""
        chunk.is_lost, self._is_current, self._error, self.chunk = True, False, None, None
        first, last = chunk.start + chunk.cursor, chunk.start + chunk.size - 1
        self._send(signals.items_lost, first=first, last=last)

    def _renew(self) -> None:
        """Renew the lease of the chunk, unless the loop was left early. The heartbeat's thread calls it."""
        chunk = self.chunk
        if chunk is not None and self._iterator() is not None:
            self._chunks.renew(chunk)

    def _raise_if_interrupted(self) -> None:
        active = self._active
        active.raise_if_interrupted()
        if active.termination is not None and active.termination.is_requested():
            raise active.termination.interrupted()  # Even if the job has caught an earlier one.

    def _refuse_transaction(self) -> None:
        if self._is_in_transaction():
            message = f"{self._call}: a transaction is open, which would hide claims from other tasks."
            hint = f"Call it outside of the transaction, and use {_atomic_item()} in the loop."
            raise InvalidItems(message, hint=hint)

    def _refuse_transaction_around_item(self, call: str, using: str | None) -> None:
        if self._is_in_transaction():
            message = f"{call}: a transaction is open, which may roll back the writes of an item that is done."
            hint = f"Use {_atomic_item()} in place of it." if using is None else "Leave the surrounding atomic()."
            raise InvalidItems(message, hint=hint)

    def _is_in_transaction(self) -> bool:
        """Return True if the job has opened a transaction: its own run may be in one of the caller."""
        return database.in_transaction() and not self._attempt.in_transaction

    def _report(self, value: Any, *, is_last: bool = False) -> None:
        now = time.monotonic()
        if not is_last and now - self._reported_at < REPORT_INTERVAL:
            return
        self._reported_at = now
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        total = self._total if self._attempt.task_count == 1 else None
        report_items(self._job, self._active, self._attempt, self._done, total, text[:MAX_TEXT])

    def _send(self, signal: Any, **values: Any) -> None:
        job = self._job
        signal.send_robust(type(job), spec=job.spec, run=self._attempt.run, task=environ.current_task(), **values)


class _ClaimedItems(Iterator[Any]):
    """The iterator of a loop."""

    __slots__ = ("__weakref__", "_loop")

    def __init__(self, loop: ClaimLoop) -> None:
        self._loop = loop

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self._loop.next()


class _ChunkLost(Exception):
    """Another worker has taken the chunk."""


def _atomic_item() -> str:
    alias = database.database_alias()
    return f"`with self.item(item, atomic={True if alias == DEFAULT_DB_ALIAS else alias!r})`"


def _count(call: str, name: str, value: Any, minimum: int) -> int:
    try:
        number = -1 if isinstance(value, bool) else index(value)
    except TypeError:
        number = -1
    if not minimum <= number <= MAX_COUNT:
        expected = f"expected {name} to be a whole number from {minimum} to {MAX_COUNT}"
        raise InvalidItems(f"{call}: {expected}, got {value!r}.")
    return number


def _seconds(call: str, lease: Any) -> float:
    seconds = lease.total_seconds() if isinstance(lease, timedelta) else lease
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise InvalidItems(f"{call}: expected lease to be a number of seconds or a timedelta, got {lease!r}.")
    if not math.isfinite(seconds) or not MIN_LEASE_SECONDS <= seconds <= MAX_COUNT:
        expected = f"expected lease to be from {MIN_LEASE_SECONDS} to {MAX_COUNT} seconds"
        raise InvalidItems(f"{call}: {expected}, got {lease!r}.")
    return float(seconds)


def _refuse_event_loop(call: str) -> None:
    if lists.in_event_loop():
        hint = "Put the loop into a function, and `await sync_to_async(function)()`."
        raise InvalidItems(f"{call}: an event loop is running, which claim() would block.", hint=hint)
