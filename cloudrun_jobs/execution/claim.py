"""Whose run it is: the record this process works on, made or taken over by one statement each."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from django.db import IntegrityError
from django.db.models import F, Q
from django.db.models.functions import Coalesce

from cloudrun_jobs import conf
from cloudrun_jobs.environ import RUN_ID_VARIABLE, CloudRunTask
from cloudrun_jobs.exceptions import InvalidRunId
from cloudrun_jobs.models import JobRun, Status, Trigger
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.models.runs import is_run_id
from cloudrun_jobs.runs import database
from cloudrun_jobs.runs.database import insert
from cloudrun_jobs.runs.execution_names import assign_execution_name
from cloudrun_jobs.runs.requester import current_requester
from cloudrun_jobs.signals import run_recreated
from cloudrun_jobs.spec.tick import ScheduleTick, is_over


class Invocation(NamedTuple):
    """How this process came to run a job."""

    command: str
    environment: str
    argv: list[str] | None
    task: CloudRunTask | None = None  # None outside Cloud Run, and for a job that another job calls.
    run_id: str = ""  # Of a request that this very process made.


class AlreadyClaimed(NamedTuple):
    """The run is not this process's: another execution has it, or it ended before."""

    run: JobRun


def claim(start: Invocation) -> JobRun | AlreadyClaimed:
    """Return the run that this process is to do. Raises `InvalidRunId`."""
    if start.run_id:
        return _answer(start, UUID(start.run_id), execution=None)
    task = start.task
    if task is None:
        return _record(start)
    if not task.run_id:
        return _without_request(start, task)
    if not is_run_id(task.run_id):
        words = f"{RUN_ID_VARIABLE}: expected the UUID of a run, got {task.run_id[:100]!r}."
        raise InvalidRunId(words, hint="delay() sets it; leave it out to start a run of its own.")
    if is_over(task.reserved_for) and (late := _not_begun(start, task)):
        return AlreadyClaimed(late)
    return _answer(start, UUID(task.run_id), execution=task.execution)


def _answer(start: Invocation, run_id: UUID, *, execution: str | None) -> JobRun | AlreadyClaimed:
    """Take the run that was asked for, unless another execution has. May be repeated after a lost answer."""
    untaken = Q(execution=None, status__in=(Status.PENDING, Status.SENT))
    # What this process asked for itself nobody else knows of.
    mine = Q(execution=execution) if execution else Q(execution=None, status=Status.RUNNING)
    free = Q(untaken | mine, command=start.command)
    move = partial(JobRun(pk=run_id).transition, Status.RUNNING, free, **_running(start, execution))
    if assign_execution_name(execution, move):
        return JobRun.objects.get(pk=run_id)
    found = _found(run_id)
    if found is None:
        return _restore(start, run_id, execution)
    return AlreadyClaimed(found) if found.command == start.command else _record(start)


def _not_begun(start: Invocation, task: CloudRunTask) -> JobRun | None:
    """Return the run if it has no record any more, or waits; a retry of one that has begun is never too late."""
    run = _found(task.run_id) or JobRun(pk=task.run_id, command=start.command, status=Status.LOST)
    return run if run.status in {Status.PENDING, Status.LOST} else None


def _found(run_id: UUID | str) -> JobRun | None:
    return JobRun.objects.filter(pk=run_id).first()


def _running(start: Invocation, execution: str | None) -> dict[str, Any]:
    return {
        "execution": execution,
        **_full_name(start, execution),
        "task_count": start.task.count if start.task else 1,
        "started_at": Coalesce(F("started_at"), Now()),
        "finished_at": None,
        "reason": "",
    }


def _full_name(start: Invocation, execution: str | None) -> dict[str, str]:
    """Return the name by which the service knows the execution, where the settings say what Cloud Run does not."""
    settings = conf.load()
    if not (execution and start.task and settings.project and settings.region):
        return {}
    place = f"projects/{settings.project}/locations/{settings.region}"
    return {"execution_name": f"{place}/jobs/{start.task.job}/executions/{execution}"}


def _restore(start: Invocation, run_id: UUID, execution: str | None) -> JobRun | AlreadyClaimed:
    """Make the row again that was pruned, or is not in the backup that was restored."""
    try:
        run = assign_execution_name(
            execution, partial(_record, start, pk=run_id, execution=execution, trigger=Trigger.DELAY)
        )
    except IntegrityError:
        if _found(run_id) is None:
            raise
        return _answer(start, run_id, execution=execution)  # Another task of the execution made it.
    run_recreated.send_robust(JobRun, run=run)
    return run


def _without_request(start: Invocation, task: CloudRunTask) -> JobRun | AlreadyClaimed:
    """Make the run of an execution that a schedule started, or a person at the console."""
    trigger = Trigger.SCHEDULE if task.schedule else Trigger.MANUAL
    record = partial(_record, start, execution=task.execution, trigger=trigger)
    try:
        run: JobRun | AlreadyClaimed = assign_execution_name(task.execution, record)
    except IntegrityError:  # Another task of the execution made it, or an earlier attempt of this one.
        run = _answer(start, JobRun.objects.get(execution=task.execution).pk, execution=task.execution)
    tick = ScheduleTick.decode(task.schedule)
    # Without an execution it is not this one's run, but that of another command in the same container.
    if isinstance(run, AlreadyClaimed) or tick is None or run.schedule or not run.execution:
        return run
    return _book(run, tick)


def _book(run: JobRun, tick: ScheduleTick) -> JobRun | AlreadyClaimed:
    """Note which tick of the schedule this is, and leave it to the execution that did so first."""
    due = tick.due(run.created_at)
    try:
        with database.savepoint():
            run.update_if(Q(), schedule=tick.scheduler_job, scheduled_for=due)
    except IntegrityError:
        first = JobRun.objects.get(schedule=tick.scheduler_job, scheduled_for=due)
        if first.status in {Status.FAILED, Status.CANCELLED, Status.LOST}:
            return run  # Its work is not done: somebody who starts it again wants it done.
        words = f"The tick of {due:%F %T %Z} is the run of {first.execution}."
        run.transition(Status.SKIPPED, reason="same_tick", error_message=words, finished_at=Now())
        return AlreadyClaimed(first)
    return run


def _record(start: Invocation, **values: Any) -> JobRun:
    """Insert a run that begins now."""
    run = JobRun(
        **{
            "command": start.command,
            "environment": start.environment,
            "argv": start.argv,
            "trigger": Trigger.MANUAL,
            "requested_by": current_requester(),
            "status": Status.RUNNING,
            "task_count": start.task.count if start.task else 1,
            "started_at": Now(),
            **_full_name(start, values.get("execution")),
            **values,
        }
    )
    insert(run)
    return run
