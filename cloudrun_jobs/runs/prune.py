"""Deletes the records of runs that ended long ago, and leaves the newest of each job."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction
from django.db.models import QuerySet

from cloudrun_jobs.models import JobRun
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.models.statuses import FINISHED
from cloudrun_jobs.runs import database

BATCH = 1000  # Rows that a transaction deletes: others wait for no more than that.


def prunable(command: str, *, age: timedelta, keep: int) -> QuerySet[JobRun]:
    """Return a job's runs that ended so long ago, except for its newest."""
    runs = JobRun.objects.for_command(command)
    # What was created later has not ended earlier; said twice for the index.
    old = runs.filter(status__in=FINISHED, created_at__lt=Now() - age, finished_at__lt=Now() - age)
    if not keep:
        return old
    oldest_kept = runs.newest_first().values_list("created_at", flat=True)[keep - 1 : keep].first()
    return old.filter(created_at__lt=oldest_kept) if oldest_kept else old.none()


def delete(runs: QuerySet[JobRun]) -> int:
    """Delete the runs with what belongs to them, batch by batch; return how many they were."""
    deleted = 0
    while batch := _delete_some(runs):
        deleted += batch
    return deleted


def _delete_some(runs: QuerySet[JobRun]) -> int:
    with transaction.atomic(using=database.database_alias()):
        # Locked, so that a retry does not bring one back meanwhile, nor somebody else delete it, too.
        keys = list(runs.select_for_update().order_by("created_at").values_list("pk", flat=True)[:BATCH])
        # Without what they hold, results of a megabyte perhaps. A project's own tables may refer to them.
        JobRun.objects.filter(pk__in=keys).only("pk").delete()
    return len(keys)
