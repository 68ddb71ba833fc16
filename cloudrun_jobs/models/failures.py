"""The failed tasks and items of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from django.db.models import F, QuerySet, Sum

from cloudrun_jobs.models.items import ItemChunk
from cloudrun_jobs.models.runs import JobRun, TaskRun
from cloudrun_jobs.models.statuses import DONE, ITEMS, UNFINISHED
from cloudrun_jobs.spec.shares import Shares

MAX_LISTED = 20
MAX_TEXT = 200  # characters of one item, and of one error message in a list

NEVER_STARTED = "never_started"

Failed = TypeVar("Failed", bound="FailedTask | FailedItem")


class FailedTask(NamedTuple):
    """A task that did not succeed."""

    index: int  # type: ignore[assignment]  # hides a tuple's method
    status: str
    reason: str
    error_class: str
    error_message: str

    def __str__(self) -> str:
        return f"task {self.index} ({_error(self) or self.reason or self.status})"


class FailedItem(NamedTuple):
    """An item of `claim()` whose last retry has failed."""

    #: The index of the item in its list.
    index: int  # type: ignore[assignment]  # hides a tuple's method
    item: Any
    error_class: str
    error_message: str

    def __str__(self) -> str:
        return f"{_shortened(json.dumps(self.item, ensure_ascii=False))} ({_error(self)})"


class Failures(NamedTuple, Generic[Failed]):
    """The number of failed tasks or items, and the first of them."""

    count: int  # type: ignore[assignment]  # hides a tuple's method
    listed: Sequence[Failed]

    def __str__(self) -> str:
        more = self.count - len(self.listed)
        return "; ".join([*map(str, self.listed), *([f"and {more} more"] if more else [])])


def failed_tasks(run: JobRun) -> Failures[FailedTask]:
    """Return the tasks that did not succeed; of an unfinished run, only those that have ended."""
    rows = TaskRun.objects.filter(run=run.pk).exclude(status__in=DONE)
    if not run.is_finished:
        rows = rows.exclude(status__in=UNFINISHED)
    fields = ("index", "status", "reason", "error_class", "error_message")
    found = [FailedTask(*values) for values in rows.order_by("index").values_list(*fields)[: MAX_LISTED + 1]]
    count = len(found) if len(found) <= MAX_LISTED else rows.count()
    missing = [FailedTask(index, "", NEVER_STARTED, "", "") for index in _never_started(run)]
    return Failures(count + len(missing), sorted([*found, *missing])[:MAX_LISTED])


def undone_tasks(run: JobRun) -> list[int]:
    """Return the indexes of the tasks of a finished run that did not succeed."""
    rows = TaskRun.objects.filter(run=run.pk).exclude(status__in=DONE).values_list("index", flat=True)
    return sorted([*rows, *_never_started(run)])


def _never_started(run: JobRun) -> Iterator[int]:
    """Yield the indexes of the tasks of a finished run without a row; nothing if no task has a row."""
    started = set(TaskRun.objects.filter(run=run.pk).values_list("index", flat=True)) if run.is_finished else None
    return iter(sorted(set(range(run.task_count)) - started)) if started else iter(())


def chunks_of(run: JobRun) -> QuerySet[ItemChunk]:
    """Return the chunks of the lists that the run works on: its own, or those of the first run of its chain."""
    origin = Shares.decode(run.shares).origin if run.shares else run.pk
    return ItemChunk.objects.filter(list__run=origin)


def failed_items(run: JobRun) -> Failures[FailedItem]:
    """Return the items that have failed. An item that a rerun completes is no longer among them."""
    found = first_failed_items(run)
    count = len(found) if len(found) <= MAX_LISTED else _failed_chunks(run).count()
    return Failures(count, found[:MAX_LISTED])


def first_failed_items(run: JobRun) -> list[FailedItem]:
    """Return the first items that have failed, one more than a list has, with one query."""
    return [
        FailedItem(chunk.start, chunk.items[0] if chunk.items else None, chunk.error_class, chunk.error_message)
        for chunk in _failed_chunks(run).order_by("list", "start")[: MAX_LISTED + 1]
    ]


def _failed_chunks(run: JobRun) -> QuerySet[ItemChunk]:
    return chunks_of(run).filter(status=ItemChunk.Status.FAILED)


def claims_items(run: JobRun) -> bool:
    """Return True if the run may have items of `claim()`, without a query."""
    return run.items_total is not None or run.shares is not None


def failures_of(run: JobRun) -> tuple[Failures[FailedTask], Failures[FailedItem]]:
    """Return the failed tasks and items of the run. Most runs without failures need no query."""
    has_tasks = run.status not in DONE if run.is_finished else bool(run.failed_count or run.cancelled_count)
    tasks = failed_tasks(run) if has_tasks else Failures[FailedTask](0, ())
    items = failed_items(run) if claims_items(run) else Failures[FailedItem](0, ())
    return tasks, items


def describe_items(failed: Failures[FailedItem]) -> str:
    """Return a sentence that lists the failed items."""
    return f"{failed.count} {'item' if failed.count == 1 else 'items'} failed: {failed}."


def describe_undone_items(run: JobRun) -> str:
    """Return sentences that list the failed items and count those that are not done."""
    failed, unclaimed = failed_items(run), chunks_of(run).filter(status=ItemChunk.Status.OPEN)
    left = unclaimed.aggregate(left=Sum(F("size") - F("cursor")))["left"] or 0
    sentences = [describe_items(failed)] if failed.count else []
    if left:
        sentences.append(f"{left} {'item is' if left == 1 else 'items are'} not done: every task left its loop.")
    return " ".join(sentences)


def correct_progress(run: JobRun) -> None:
    """Correct the count of done items in the tasks' progress when the run ends: that of a killed attempt is old.

    The row of the first task gets what is missing. Tasks that report a total count something other than items.
    """
    total = JobRun.objects.filter(pk=run.pk).values_list("items_total", flat=True).first()
    tasks = TaskRun.objects.filter(run=run.pk)
    if total is None or tasks.exclude(progress_total=None).exclude(progress_total=total).exists():
        return
    unfinished = chunks_of(run).filter(list__count__isnull=False).exclude(status=ItemChunk.Status.DONE)
    left = unfinished.aggregate(left=Sum(F("size") - F("cursor")))["left"] or 0
    rows = [(pk, done or 0) for pk, done in tasks.order_by("index").values_list("pk", "progress_done")]
    missing = max(0, total - left) - sum(done for _, done in rows)
    for pk, done in rows:
        if missing:
            corrected = max(0, done + missing)
            tasks.filter(pk=pk).update(progress_done=corrected)
            missing -= corrected - done


def describe(run: JobRun) -> str:
    """Return sentences that list the failed tasks, if the run has several, and the failed items."""
    sentences = []
    tasks, items = failures_of(run)
    if run.task_count > 1 and tasks.count:
        sentences.append(f"{tasks.count} of {run.task_count} tasks did not succeed: {tasks}.")
    if items.count and run.reason != ITEMS:  # With that reason, the error of the run lists them.
        sentences.append(describe_items(items))
    return " ".join(sentences)


def _error(failed: FailedTask | FailedItem) -> str:
    return ": ".join(filter(None, (failed.error_class, _shortened(failed.error_message))))


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"
