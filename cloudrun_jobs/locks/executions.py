"""Release what an execution holds once it is recorded, or known, to be over."""

from __future__ import annotations

from functools import partial

from django.db import Error

from cloudrun_jobs.backoff import retry
from cloudrun_jobs.exceptions import CloudRunJobsError, LockUnavailable
from cloudrun_jobs.locks import configured, names
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.operations import ExecutionState
from cloudrun_jobs.signals import lock_release_failed

FIRST_RETRY_DELAY = 0.1  # seconds
RELEASE_LIMIT_SECONDS = 5.0  # For a process that records the outcome of another one's run.


def settle(run: JobRun, state: ExecutionState, execution: str) -> bool:
    """End the run with the state of its execution, as `JobRun.apply_state()`; then the execution holds no lock."""
    if not _is_over(run, state):
        return run.apply_state(state, execution)
    # Also before: this process may die after it has recorded the end.
    release = partial(release_execution, run, execution)
    is_released = release(seconds=0)
    ended = run.apply_state(state, execution)
    if ended and not is_released:
        release(seconds=RELEASE_LIMIT_SECONDS)
    return ended


def _is_over(run: JobRun, state: ExecutionState) -> bool:
    """Return True if the service says that the execution has ended, and the record does not yet."""
    if state.status is None or (run.is_finished and not run.is_interrupted):
        return False
    # A deleted execution may still be stopping.
    return state.status != Status.LOST or JobRun.objects.silent().filter(pk=run.pk).exists()


def release_execution(run: JobRun, execution: str, *, seconds: float) -> bool:
    """Release all locks of an execution; retry for some seconds. Return False, with a signal, if that fails."""
    try:
        holder = partial(configured.current().release_holder, names.prefix(), execution)
        retry(lambda left: holder(), (LockUnavailable,), seconds, initial=FIRST_RETRY_DELAY, maximum=2.0)
    except (CloudRunJobsError, Error) as error:
        lock_release_failed.send_robust(JobRun, run=run, error=error)
        return False
    return True
