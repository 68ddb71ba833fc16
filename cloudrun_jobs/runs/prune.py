"""Delete old run records, except for the newest of each job."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet

from cloudrun_jobs.models import ItemChunk, ItemList, JobRun
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.models.statuses import FINISHED
from cloudrun_jobs.runs import database

BATCH_SIZE = 1000  # Rows deleted, and locked, by one transaction.
CHUNK_BATCH_SIZE = 10_000  # Chunks deleted by one transaction: a run may have a million.


def prunable(command: str, *, age: timedelta, keep: int) -> QuerySet[JobRun]:
    """Return the job's runs that ended longer than `age` ago, except for its `keep` newest runs."""
    runs = JobRun.objects.for_command(command)
    # A rerun of failed tasks needs the results and the items of the runs before it.
    has_reruns = Exists(JobRun.objects.filter(rerun_of=OuterRef("pk")))
    # A run ends after its creation, so the condition on created_at is implied; it allows the use of an index.
    old = runs.filter(~has_reruns, status__in=FINISHED, created_at__lt=Now() - age, finished_at__lt=Now() - age)
    if not keep:
        return old
    oldest_kept = runs.newest_first().values_list("created_at", flat=True)[keep - 1 : keep].first()
    return old.filter(created_at__lt=oldest_kept) if oldest_kept else old.none()


def delete(runs: QuerySet[JobRun]) -> int:
    """Delete the runs, their tasks and their items in batches; return how many runs were deleted."""
    deleted = 0
    while batch := _delete_batch(runs):
        deleted += max(batch, 0)
    return deleted


def _delete_batch(runs: QuerySet[JobRun]) -> int:
    """Delete some items of the next runs and return -1, or delete the runs and return their number."""
    with transaction.atomic(using=database.database_alias()):
        # Locked, so no retry reopens a run, and no other process deletes it, before this one does.
        keys = list(runs.select_for_update().order_by("created_at").values_list("pk", flat=True)[:BATCH_SIZE])
        if _delete_chunks(keys):
            return -1
        # Only the keys are loaded, not results of up to a megabyte. A project's own tables may refer to the runs.
        JobRun.objects.filter(pk__in=keys).only("pk").delete()
    return len(keys)


def _delete_chunks(runs: Collection[UUID]) -> bool:
    """Delete one batch of the runs' chunks; return False if there are none."""
    # Not in one query: PostgreSQL and MariaDB would scan the chunks of all runs.
    lists = list(ItemList.objects.filter(run__in=runs).values_list("pk", flat=True))
    pk = ItemChunk.objects.filter(list__in=lists).order_by("list_id").values_list("list", flat=True).first()
    if pk is None:
        return False
    # A retry that reopens the run before the next batch must write the list again.
    ItemList.objects.filter(pk=pk).update(count=None, writing_until=Now())
    chunks = ItemChunk.objects.filter(list=pk)
    last = list(chunks.order_by("start").values_list("start", flat=True)[:CHUNK_BATCH_SIZE])[-1]
    chunks.filter(start__lte=last).delete()
    return True
