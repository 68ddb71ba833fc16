"""Write the items of a `claim()` as chunks, and count them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from django.db import transaction
from django.db.models import Count, F, Q, Sum

from cloudrun_jobs.exceptions import InvalidItems
from cloudrun_jobs.execution.attempt import Attempt
from cloudrun_jobs.execution.sharding import lists
from cloudrun_jobs.execution.sharding.chunks import Chunk
from cloudrun_jobs.execution.sharding.items import MAX_ITEM_BYTES, Hashes, encoded
from cloudrun_jobs.models import Claims, ItemChunk, ItemList, JobRun
from cloudrun_jobs.runs import database

ROWS_PER_INSERT = 500
ROWS_PER_DELETE = 10_000

OPEN, FAILED = ItemChunk.Status.OPEN, ItemChunk.Status.FAILED


def write(attempt: Attempt, call: str, source: Iterable[Any], batch: int, items: ItemList) -> dict[str, int]:
    """Write the list, in chunks of `batch` items, and return its values. Raises `InvalidItems`."""
    while lists.commit(attempt, partial(_delete_some, items)):
        pass  # Rows of a task that died while it wrote the list.
    hashes = Hashes()
    for rows in _inserts(_chunks(items, encoded(call, source), batch, hashes)):
        lists.commit(attempt, partial(_insert, items, rows))
    _refuse_duplicates(attempt, call, items, hashes)
    return {"count": len(hashes)}


def _delete_some(items: ItemList) -> bool:
    chunks = ItemChunk.objects.filter(list=items.pk).order_by("start")
    with transaction.atomic(using=database.database_alias()):
        lists.renew(items)
        starts = list(chunks.values_list("start", flat=True)[:ROWS_PER_DELETE])
        if starts:
            chunks.order_by().filter(start__lte=starts[-1]).delete()
        return bool(starts)


def _insert(items: ItemList, rows: list[ItemChunk]) -> None:
    with transaction.atomic(using=database.database_alias()):
        lists.renew(items)
        # The rows exist if the reply to an earlier attempt at this transaction was lost.
        ItemChunk.objects.bulk_create(rows, ignore_conflicts=True)


def _chunks(
    items: ItemList, source: Iterable[tuple[Any, str]], batch: int, hashes: Hashes
) -> Iterator[tuple[ItemChunk, int]]:
    """Yield the rows, each with its length as JSON. A row that would exceed `MAX_ITEM_BYTES` ends early."""
    held: list[Any] = []
    length = 0
    for item, text in source:
        if held and (len(held) == batch or length + len(text) > MAX_ITEM_BYTES):
            yield _row(items, len(hashes), held), length
            held, length = [], 0
        held.append(item)
        length += len(text)
        hashes.add(text)
    if held:
        yield _row(items, len(hashes), held), length


def _row(items: ItemList, end: int, held: list[Any]) -> ItemChunk:
    return ItemChunk(list_id=items.pk, start=end - len(held), size=len(held), items=held)


def _inserts(chunks: Iterable[tuple[ItemChunk, int]]) -> Iterator[list[ItemChunk]]:
    rows: list[ItemChunk] = []
    total = 0
    for row, length in chunks:
        if rows and (len(rows) == ROWS_PER_INSERT or total + length > MAX_ITEM_BYTES):
            yield rows
            rows, total = [], 0
        rows.append(row)
        total += length
    if rows:
        yield rows


def _refuse_duplicates(attempt: Attempt, call: str, items: ItemList, hashes: Hashes) -> None:
    for first, second in hashes.repeated():
        values = [lists.commit(attempt, partial(_read, items, index)) for index in (first, second)]
        if json.dumps(values[0], sort_keys=True) == json.dumps(values[1], sort_keys=True):
            message = f"{call}: expected each item once, got the same item at the indexes {first} and {second}."
            raise InvalidItems(message, hint="Remove duplicates: `dict.fromkeys(items)`, `queryset.distinct()`.")


def _read(items: ItemList, index: int) -> Any:
    chunk = ItemChunk.objects.filter(list=items.pk, start__lte=index).order_by("-start")[0]
    return chunk.items[index - chunk.start]


def note_total(attempt: Attempt) -> int:
    """Record and return the total for the run's progress: all items; of a rerun, those that were left."""
    run, origin = attempt.run, attempt.share.origin
    if run.pk == origin:
        total = _lists(origin).aggregate(total=Sum("count"))["total"]
        behind = Q(items_total=None) | Q(items_total__lt=total)
    else:
        total, behind = counts(origin).left, Q(items_total=None)
    JobRun.objects.filter(behind, pk=run.pk).update(items_total=total)
    recorded = JobRun.objects.filter(pk=run.pk).values_list("items_total", flat=True).first()
    return total if recorded is None else recorded


def counts(origin: Any, held: Chunk | None = None) -> Claims:
    """Return the counts of the run's items by state, as its tasks last saved them.

    `held` is the chunk of this process, whose cursor may not be saved yet.
    """
    total = _lists(origin).aggregate(total=Sum("count"))["total"] or 0
    chunks = ItemChunk.objects.filter(list__in=_lists(origin)).exclude(pk=held.pk if held else 0)
    left = Sum(F("size") - F("cursor"), filter=Q(status=OPEN))
    found = chunks.filter(status__in=(OPEN, FAILED)).aggregate(left=left, failed=Count("pk", Q(status=FAILED)))
    failed, remaining = found["failed"], (found["left"] or 0) + (held.size - held.cursor if held else 0)
    return Claims(total - failed - remaining, failed, remaining)


def _lists(origin: Any) -> Any:
    return ItemList.objects.filter(run=origin, kind=ItemList.Kind.CLAIM, count__isnull=False)
