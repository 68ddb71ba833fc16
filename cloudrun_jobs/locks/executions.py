"""Release the locks of an execution that has ended."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from django.db import Error

from cloudrun_jobs.backoff import attempts
from cloudrun_jobs.exceptions import CloudRunJobsError, LockUnavailable
from cloudrun_jobs.locks import acquire, configured, names
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.operations import ExecutionState
from cloudrun_jobs.signals import lock_release_failed

RELEASE_LIMIT_SECONDS = 5.0  # For a process that records the outcome of another one's run.


def settle(run: JobRun, state: ExecutionState, execution: str) -> bool:
    """Apply the execution's state, as `JobRun.apply_state()` does; if the execution is over, release its locks."""
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
    if state.status is None:
        return False
    if run.is_finished:
        return run.is_interrupted and state.status == Status.CANCELLED
    # A deleted execution may still be stopping.
    return state.status != Status.LOST or JobRun.objects.silent().filter(pk=run.pk).exists()


def release_execution(
    run: JobRun, execution: str, *, seconds: float, is_interrupted: Callable[[], bool] = lambda: False
) -> bool:
    """Release all locks of an execution; retry for some seconds, until SIGTERM. Send a signal if that fails."""
    for _ in attempts(seconds, initial=acquire.FIRST_RETRY_DELAY_SECONDS, maximum=2.0):
        try:
            configured.current().release_holder(names.prefix(), execution)
        except (CloudRunJobsError, Error) as error:
            failure = error
        else:
            return True
        if is_interrupted() or not isinstance(failure, LockUnavailable):
            break
    lock_release_failed.send_robust(JobRun, run=run, error=failure)
    return False
