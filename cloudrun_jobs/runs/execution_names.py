"""Assign execution names to runs.

Cloud Run keeps the last thousand executions of a job, and their names end in five random letters. A later
execution may therefore get the name of a deleted one. Then the earlier run's record releases the name.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from django.db import IntegrityError

from cloudrun_jobs.models import JobRun
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.runs import database

T = TypeVar("T")

# No container of an execution starts this long after its run has ended.
NAME_REUSE_DELAY = timedelta(hours=1)


def assign_execution_name(execution: str | None, work: Callable[[], T]) -> T:
    """Call `work`, which writes the name into a record; once more if an ended run released the name.

    Raises `IntegrityError` if the name is that of an unfinished run, or of one that has just ended.
    """
    if not execution:
        return work()
    try:
        with database.savepoint():
            return work()
    except IntegrityError:
        if not _release_stale_name(execution):
            raise
        return work()


def _release_stale_name(execution: str) -> bool:
    earlier = JobRun.objects.filter(execution=execution, finished_at__lt=Now() - NAME_REUSE_DELAY)
    return bool(earlier.update(execution=None, execution_name=""))
