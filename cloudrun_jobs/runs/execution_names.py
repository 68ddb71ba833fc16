"""The short names of executions, by which the processes of one find their run.

Cloud Run keeps the last thousand executions of a job, and their names end in five random letters: once it has
forgotten one, another may bear its name. The earlier run's record gives it up then.
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

OVER = timedelta(hours=1)  # No container of an execution starts as long after its run has ended.


def assign_execution_name(execution: str | None, work: Callable[[], T]) -> T:
    """Do what writes an execution's name into a record, once more if that was an earlier run's.

    Raises `IntegrityError` if it is that of a run under way, or of one that ended just now.
    """
    if not execution:
        return work()
    try:
        with database.savepoint():
            return work()
    except IntegrityError:
        if not _given_up(execution):
            raise
        return work()


def _given_up(execution: str) -> bool:
    earlier = JobRun.objects.filter(execution=execution, finished_at__lt=Now() - OVER)
    return bool(earlier.update(execution=None, execution_name=""))
