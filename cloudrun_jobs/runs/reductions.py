"""Start an execution that only calls `reduce()`, if all tasks of a run have ended without calling it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from django.core.management import get_commands, load_command_class
from django.db.models import Q

from cloudrun_jobs.backends.base import TRANSIENT_ERRORS, Backend, Request
from cloudrun_jobs.environ import REDUCE_VARIABLE
from cloudrun_jobs.exceptions import AccessDenied, ServiceError
from cloudrun_jobs.models import JobRun, Status, TaskRun
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.operations import ExecutionState
from cloudrun_jobs.runs import dispatch
from cloudrun_jobs.signals import dispatch_failed, dispatch_postponed, run_reconciled
from cloudrun_jobs.spec.overrides import Overrides


def start(backend: Backend, run: JobRun, state: ExecutionState) -> str:
    """Start the execution, unless another process does; `state` is that of the execution that ran the tasks."""
    waiting = Q(status=Status.RUNNING, execution=run.execution, tasks_execution_name="")
    if run.cancel_requested_at is not None:
        if run.transition(Status.CANCELLED, waiting, finished_at=Now(), reason="cancelled"):
            run_reconciled.send_robust(JobRun, run=run)
        return run.status
    claim = partial(_claim_dispatch, run, waiting)
    if not claim(Q(sending_until=None) | Q(sending_until__lt=Now())):
        return "already claimed"
    tasks = TaskRun.objects.filter(run=run.pk)
    killed = tasks.filter(status__in=(Status.PENDING, Status.RUNNING))
    killed.update(status=Status.FAILED, reason=state.reason, finished_at=Now())
    ended = (Status.SUCCEEDED, Status.FAILED)
    counts = {f"{status}_count": tasks.filter(status=status).count() for status in ended}
    run.update_if(waiting, image=state.image, retried_count=state.retried_count, **counts)
    try:
        # An earlier reconciler may have died after its request.
        operation = dispatch.start_execution(backend, run, _request(run), is_unclear=True, claim=claim)
    except TRANSIENT_ERRORS as error:
        dispatch_postponed.send_robust(JobRun, run=run, error=error)
        return "postponed"
    except AccessDenied:
        raise
    except ServiceError as error:
        values = {"error_class": type(error).__name__, "error_message": str(error), "reason": "reduce"}
        if run.transition(Status.FAILED, waiting, finished_at=Now(), **values):
            dispatch_failed.send_robust(JobRun, run=run, error=error, propagates=False)
        return "refused"
    dispatch.record_reduction(run, operation)
    return "reducing"


def _claim_dispatch(run: JobRun, waiting: Q, condition: Q | None = None) -> bool:
    """Acquire the dispatch lease of a run that waits for `reduce()`."""
    return run.update_if(waiting & (condition or Q()), sending_until=Now() + dispatch.DISPATCH_LEASE)


def _request(run: JobRun) -> Request:
    request = dispatch.request_of(run)
    given = request.overrides
    overrides = Overrides(tasks=_task_count(run), timeout=given.timeout, env=given.env)
    return replace(request, overrides=overrides, extra_env={REDUCE_VARIABLE: "1"})


def _task_count(run: JobRun) -> int:
    """Return the smallest number of tasks that Cloud Run accepts; only the first one calls `reduce()`."""
    try:
        command: Any = load_command_class(get_commands()[run.command], run.command)
        count: int = command.spec.task_parallelism or 1
    except Exception:  # noqa: BLE001  (the container has the job's code; this process may not)
        return 1
    return count
