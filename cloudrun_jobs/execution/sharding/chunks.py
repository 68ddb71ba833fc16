"""Take, renew, save and finish the chunks of a list.

A worker holds a chunk by a lease, which the database's clock times. Each statement that changes a chunk names its
worker: after another worker has taken the chunk, the statements of the first one change nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from django.db import connections, transaction
from django.db.models import Case, F, IntegerField, Q, QuerySet, Value, When

from cloudrun_jobs.execution import deadlines
from cloudrun_jobs.execution.attempt import Attempt
from cloudrun_jobs.execution.sharding import lists
from cloudrun_jobs.models import ItemChunk, ItemList, TaskRun
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.runs import database

T = TypeVar("T")

OPEN, DONE, FAILED = ItemChunk.Status.OPEN, ItemChunk.Status.DONE, ItemChunk.Status.FAILED

# One statement and one round trip: twice as fast as the three statements of the portable version.
POSTGRES_TAKE = """
    WITH finished AS (
        UPDATE {table} SET status = 'done', "cursor" = size, leased_until = NULL
        WHERE id = %(finished)s AND worker = %(worker)s AND status = 'open'
    ), free AS MATERIALIZED (
        SELECT id FROM {table}
        WHERE list_id = %(list)s AND status = 'open' AND start > %(after)s AND id <> %(finished)s
            AND (leased_until IS NULL OR leased_until < STATEMENT_TIMESTAMP())
        ORDER BY start LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    UPDATE {table} AS chunk
    SET worker = %(worker)s, task_index = %(index)s, leased_until = STATEMENT_TIMESTAMP() + %(lease)s
    FROM free WHERE chunk.id = free.id
    RETURNING chunk.id, chunk.start, chunk.items, chunk."cursor", chunk.tries
"""


class Chunk:
    """A chunk that this worker holds."""

    __slots__ = ("cursor", "is_lost", "items", "leased_until", "pk", "size", "start", "tries")

    def __init__(
        self, pk: int, start: int, items: list[Any], cursor: int, tries: int, leased_until: float
    ) -> None:
        self.pk, self.start, self.items, self.cursor, self.tries = pk, start, items, cursor, tries
        self.size = len(items)
        self.leased_until = leased_until  # On this process's monotonic clock.
        self.is_lost = False  # Another worker has taken it.

    @property
    def index(self) -> int:
        """The index in the list of the item at the cursor."""
        return self.start + self.cursor


class Chunks:
    """The chunks of a list, for the worker of one attempt."""

    def __init__(self, attempt: Attempt, items: ItemList, lease: float) -> None:
        self._attempt, self._list, self._lease = attempt, items, timedelta(seconds=lease)
        self._after = -1  # The start of the latest chunk: the search continues after it.
        self.has_open = True  # Whether chunks are unfinished, as last seen: other tasks may hold them.
        connection = connections[database.database_alias()]
        self._is_postgres = connection.vendor == "postgresql"
        self._skips_locked = connection.features.has_select_for_update_skip_locked
        table = connection.ops.quote_name(ItemChunk._meta.db_table)
        self._postgres_take = POSTGRES_TAKE.format(table=table)

    def take_over(self) -> None:
        """Free the chunks that earlier attempts of this task hold. A superseded attempt frees nothing."""
        latest = TaskRun.objects.filter(
            run=self._attempt.run.pk, index=self._attempt.task_index, worker=self._attempt.worker
        )
        mine = self._open.filter(task_index=self._attempt.task_index).exclude(worker=self._attempt.worker)

        def free() -> None:
            if latest.exists():
                mine.update(worker=None, leased_until=None)

        self._commit(free)

    def finish_and_take(self, finished: Chunk | None) -> Chunk | None:
        """Record that all items of the chunk are done, and take the next free chunk, if there is one.

        The search begins after the latest chunk, so a failed item is retried after the rest of the list.
        """
        taken = self._take(finished.pk if finished else 0)
        if taken is None and self._rewind():
            taken = self._take(0)
        if taken is not None:
            self._after = taken.start
        return taken

    def _rewind(self) -> bool:
        """Restart the search at the first unfinished chunk; return False if there is none."""
        starts = self._open.order_by("start").values_list("start", flat=True)
        first = self._commit(starts.first)
        self.has_open = first is not None
        self._after = -1 if first is None else first - 1
        return self.has_open

    def renew(self, chunk: Chunk) -> bool:
        """Renew the lease and save the cursor; return False if the chunk is lost. The heartbeat calls it."""
        began = time.monotonic()
        mine = self._mine.filter(pk=chunk.pk)
        if mine.update(leased_until=Now() + self._lease, cursor=_at_least(chunk.cursor)):
            chunk.leased_until = began + self._lease.total_seconds()
        else:
            chunk.is_lost = True
        return not chunk.is_lost

    def advance(self, chunk: Chunk) -> bool:
        """Move the saved cursor past the current item, in its transaction; return False if the chunk is lost."""
        cursor = chunk.cursor + 1
        values = {"cursor": cursor, **({"status": DONE, "leased_until": None} if cursor == chunk.size else {})}
        return bool(self._mine.filter(pk=chunk.pk, cursor__lte=chunk.cursor).update(**values))

    def is_saved(self, chunk: Chunk) -> bool:
        """Return True if the saved cursor is past the current item: the reply to a commit may have been lost.

        The commit may be in progress: the lock of the row waits for its end.
        """
        cursors = ItemChunk.objects.select_for_update().filter(pk=chunk.pk).values_list("cursor", flat=True)

        def read() -> int | None:
            with transaction.atomic(using=database.database_alias()):
                return cursors.first()

        saved = self._commit(read)
        return saved is not None and saved > chunk.cursor

    def fail(self, chunk: Chunk, error: dict[str, str], retries: int, seconds: float) -> bool:
        """Record that the current item has failed; return False if the chunk is lost.

        The item of a larger chunk becomes a chunk of its own. Until its retries are used up, any task may take it.
        """
        status = OPEN if chunk.tries < retries else FAILED
        values: dict[str, Any] = {"tries": chunk.tries + 1, "status": status, **error}
        return self._commit(partial(self._fail, chunk, values), seconds)

    def _fail(self, chunk: Chunk, values: dict[str, Any]) -> bool:
        mine = self._mine.filter(pk=chunk.pk)
        if chunk.size == 1:
            return bool(mine.update(worker=None, leased_until=None, **values))
        cursor = chunk.cursor + 1
        end = {"status": DONE, "leased_until": None} if cursor == chunk.size else {}
        item = ItemChunk(list=self._list, start=chunk.index, size=1, items=[chunk.items[chunk.cursor]], **values)
        with transaction.atomic(using=database.database_alias()):
            if not mine.update(cursor=cursor, **end):
                return False
            # The row exists if the reply to an earlier attempt at this transaction was lost.
            ItemChunk.objects.bulk_create([item], ignore_conflicts=True)
        return True

    def release(self, chunk: Chunk | None, seconds: float) -> None:
        """Save the cursor, and free every chunk that this worker holds."""
        if chunk is not None:
            end = {"status": DONE} if chunk.cursor == chunk.size else {}
            values = {"cursor": _at_least(chunk.cursor), "worker": None, "leased_until": None, **end}
            self._commit(lambda: self._mine.filter(pk=chunk.pk).update(**values), seconds)
        # An interrupt may have hidden a chunk that was taken.
        self._commit(lambda: self._mine.update(worker=None, leased_until=None), seconds)

    def _take(self, finished: int) -> Chunk | None:
        was_sent = False

        def take() -> Chunk | None:
            nonlocal was_sent
            # After an error, the chunk may be taken: its reply was lost.
            found = self._find_taken(finished) if was_sent else None
            was_sent = True
            take_free = self._take_on_postgres if self._is_postgres else self._take_free
            return found or take_free(finished)

        return self._commit(take)

    def _take_on_postgres(self, finished: int) -> Chunk | None:
        until = time.monotonic() + self._lease.total_seconds()
        values: dict[str, Any] = {
            "finished": finished,
            "worker": self._attempt.worker,
            "index": self._attempt.task_index,
            "list": self._list.pk,
            "after": self._after,
            "lease": self._lease,
        }
        with connections[database.database_alias()].cursor() as cursor:
            cursor.execute(self._postgres_take, values)
            row = cursor.fetchone()
        if row is None:
            return None
        pk, start, items, saved, tries = row
        return Chunk(pk, start, json.loads(items), saved, tries, until)

    def _take_free(self, finished: int) -> Chunk | None:
        atomic = transaction.atomic(using=database.database_alias())
        with atomic if self._skips_locked else nullcontext():
            self._finish(finished)
            free = self._open.filter(Q(leased_until=None) | Q(leased_until__lt=Now()), start__gt=self._after)
            free = free.exclude(pk=finished).order_by("start")
            candidates = free.select_for_update(skip_locked=True) if self._skips_locked else free
            while row := candidates.first():
                if chunk := self._lease_row(row.pk, free.order_by()):
                    return chunk
            return None

    def _find_taken(self, finished: int) -> Chunk | None:
        """Finish the chunk, and return the one that a statement whose reply was lost has taken."""
        self._finish(finished)
        row = self._mine.exclude(pk=finished).first()
        return self._lease_row(row.pk, self._mine) if row else None

    def _finish(self, pk: int) -> None:
        if pk:
            self._mine.filter(pk=pk).update(status=DONE, cursor=F("size"), leased_until=None)

    def _lease_row(self, pk: int, among: QuerySet[ItemChunk]) -> Chunk | None:
        until, worker = time.monotonic() + self._lease.total_seconds(), self._attempt.worker
        index, leased_until = self._attempt.task_index, Now() + self._lease
        if not among.filter(pk=pk).update(worker=worker, task_index=index, leased_until=leased_until):
            return None
        row = self._mine.get(pk=pk)  # Read after the update: the cursor may have moved since the row was found.
        return Chunk(row.pk, row.start, row.items, row.cursor, row.tries, until)

    @property
    def _open(self) -> QuerySet[ItemChunk]:
        return ItemChunk.objects.filter(list=self._list.pk, status=OPEN)

    @property
    def _mine(self) -> QuerySet[ItemChunk]:
        return self._open.filter(worker=self._attempt.worker)

    def _commit(self, work: Callable[[], T], seconds: float = deadlines.RECORD_START_LIMIT_SECONDS) -> T:
        return lists.commit(self._attempt, work, seconds)


def _at_least(cursor: int) -> Case:
    """Return an expression for a cursor that never moves back: a renewal may be late."""
    return Case(When(cursor__lt=cursor, then=Value(cursor)), default=F("cursor"), output_field=IntegerField())
