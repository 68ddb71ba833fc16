"""Tasks of a run that claim items, in the threads of a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections

from cloudrun_jobs.execution.active import ActiveRun
from cloudrun_jobs.execution.attempt import Attempt
from cloudrun_jobs.execution.termination import Termination
from cloudrun_jobs.models import JobRun
from tests.jobs.management.commands import outcome
from tests.runs.conftest import EXECUTION, begin


@contextmanager
def task(
    run: JobRun, index: int = 0, attempt: int = 0, count: int = 2, execution: str = EXECUTION
) -> Iterator[outcome.Command]:
    """Yield the command of a running attempt; at the end, close its claims as the runner does."""
    job, error = outcome.Command(), None
    with begin(run, command="outcome", index=index, attempt=attempt, count=count, execution=execution) as begun:
        assert isinstance(begun, Attempt)
        job._active = ActiveRun(begun.run)
        job._active.attempt, job._active.termination = begun, Termination()
        try:
            yield job
        except BaseException as raised:
            error = raised
            raise
        finally:
            if job._active.claims is not None:
                job._active.claims.close(error)
            job._active.attempt = None


def fail_at(job: outcome.Command, stop: Any, error: BaseException, items: Any, **options: Any) -> None:
    """Claim the items, and raise the error at one of them."""
    for item in job.claim(items, **options):
        if item == stop:
            raise error


def die(job: outcome.Command) -> None:
    """Simulate the death of the task's process: it keeps its chunk until the lease expires."""
    active = job._active
    assert active is not None
    assert active.attempt is not None
    active.attempt.heartbeat.stop()
    active.claims = None


def in_thread(work: Callable[[], Any]) -> Any:
    try:
        return work()
    finally:
        connections.close_all()  # This thread's.
