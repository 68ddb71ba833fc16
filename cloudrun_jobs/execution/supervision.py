"""Record the end of attempts and runs whose process has died or never started."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import Exists, F, OuterRef, Q, QuerySet

from cloudrun_jobs.execution.delivery import KILLED
from cloudrun_jobs.execution.outcome import MAX_MESSAGE
from cloudrun_jobs.models import JobRun, Status, TaskRun
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.models.querysets import HEARTBEAT_TIMEOUT
from cloudrun_jobs.models.statuses import UNFINISHED
from cloudrun_jobs.models.values import storable
from cloudrun_jobs.operations import ExecutionState
from cloudrun_jobs.signals import run_reconciled

# How long a run waits for a worker that knows its command: a deployment does not replace all workers at once.
UNKNOWN_COMMAND_LIMIT = timedelta(hours=1)

UNKNOWN_COMMAND = "unknown_command"


class Death(NamedTuple):
    """Why the process of an attempt has ended."""

    process: str  # Such as "celery@host/1234".
    reason: str
    message: str


def record_death(run_id: str, index: int | None, death: Death) -> bool:
    """End the attempt of a dead process, so that another one may start at once.

    Return False if the record has no attempt of the process. `index` is None for one that only calls `reduce()`.
    """
    rows = TaskRun.objects.filter(run=UUID(run_id), process=death.process)
    if index is None:
        JobRun.objects.filter(pk=run_id, reducer__in=rows.values("worker")).update(reducer=None)
        return rows.exists()
    rows = rows.filter(index=index)
    rows.filter(status=Status.RUNNING, exit_code=None).update(
        exit_code=KILLED,
        reason=death.reason,
        error_message=storable(f"The process {death.process} has ended: {death.message}")[:MAX_MESSAGE],
        interruptions=F("interruptions") + int(death.reason == "interrupted"),
    )
    return rows.exists()


def record_revocation(run_id: str) -> None:
    """Cancel a run whose Celery task was revoked; end it if no process works on it. No message of it is left."""
    run = JobRun.objects.filter(pk=run_id, status__in=UNFINISHED).first()
    if run is None:
        return
    state = ExecutionState(
        status=Status.CANCELLED,
        reason="cancelled",
        message="Its task was revoked.",
        task_count=run.task_count,
        succeeded_count=run.succeeded_count,
        failed_count=run.failed_count,
        cancelled_count=run.task_count - run.succeeded_count - run.failed_count,
        retried_count=run.retried_count,
    )
    if run.status == Status.RUNNING:
        run.update_if(Q(cancel_requested_at=None), cancel_requested_at=Now())
        if _live_tasks(Q(run=run.pk)).exists():
            return  # They end at the signal, or at their next progress().
    if run.apply_state(state, run.execution):
        run_reconciled.send_robust(JobRun, run=run)


def fail_unknown_command(run: JobRun, message: str) -> bool:
    """End a run as failed whose command no worker has known for an hour; return True if it has ended.

    The hour begins with the first worker that does not know it: the run may have waited longer in its queue.
    """
    is_idle = Q(~Exists(_live_tasks(Q(run=OuterRef("pk")))), status__in=UNFINISHED)
    is_known = Q(reason=UNKNOWN_COMMAND)
    values: dict[str, Any] = {"reason": UNKNOWN_COMMAND, "error_message": storable(message)[:MAX_MESSAGE]}
    if run.update_if(is_idle & ~is_known, **values, sending_until=Now() + UNKNOWN_COMMAND_LIMIT):
        return False
    values["finished_at"] = Now()
    if run.transition(Status.FAILED, is_idle & is_known & Q(sending_until__lt=Now()), **values):
        TaskRun.objects.filter(run=run.pk, status__in=UNFINISHED).update(status=Status.FAILED, **values)
        run_reconciled.send_robust(JobRun, run=run)
    return run.is_finished


def _live_tasks(condition: Q) -> QuerySet[TaskRun]:
    since = Now() - HEARTBEAT_TIMEOUT
    return TaskRun.objects.filter(condition, status=Status.RUNNING, exit_code=None, heartbeat_at__gt=since)
