"""Claim the run that this process is to work on, or insert its record, with one statement each."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from types import MappingProxyType
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
from cloudrun_jobs.models.statuses import UNFINISHED
from cloudrun_jobs.runs import database
from cloudrun_jobs.runs.execution_names import assign_execution_name
from cloudrun_jobs.runs.requester import current_requester
from cloudrun_jobs.signals import run_recreated
from cloudrun_jobs.spec import declared_name
from cloudrun_jobs.spec.tick import CLOCK_TOLERANCE, REPEAT_TICK_HINT, ScheduleTick, is_over

UNSTARTED = (Status.PENDING, Status.SENT)
FAILED = frozenset({Status.FAILED, Status.LOST})


class Invocation(NamedTuple):
    """How this process came to run a job."""

    command: str
    environment: str
    argv: list[str] | None
    # None for a job that another job calls, and outside Cloud Run, except for an element of `delay_many()`.
    task: CloudRunTask | None = None
    run_id: str = ""  # Set for a request that this process recorded.
    known: JobRun | None = None  # The record of the requested run, if this process has just read it.
    script: str = ""  # What precedes `argv` in the arguments of the job's container.
    values: Mapping[str, Any] = MappingProxyType({})  # Of the record, for a run that an HTTP request triggers.
    reduces: bool = False  # Whether the job has `reduce()`.
    reduces_partial: bool = False  # Whether it is called even if a task has failed.


class AlreadyClaimed(NamedTuple):
    """The run has been claimed by another execution, or has ended."""

    run: JobRun


def claim(start: Invocation) -> JobRun | AlreadyClaimed:
    """Return the run that this process is to work on. Raises `InvalidRunId`."""
    if start.values:
        return _insert_triggered(start)
    if start.run_id:
        return _claim_requested(start, UUID(start.run_id), execution=None)
    task = start.task
    if task is None:
        return _insert(start)
    if not task.run_id:
        return _claim_unrequested(start, task)
    if not is_run_id(task.run_id):
        message = f"{RUN_ID_VARIABLE}: expected the UUID of a run, got {task.run_id[:100]!r}."
        raise InvalidRunId(message, hint="delay() sets it; unset it to start a separate run.")
    if task.only_reduces:
        return _claim_reduction(start, task)
    if is_over(task.reserved_for) and (late := _unstarted(start, task)):
        return AlreadyClaimed(late)
    return _claim_requested(start, UUID(task.run_id), execution=task.execution)


def _claim_requested(start: Invocation, run_id: UUID, *, execution: str | None) -> JobRun | AlreadyClaimed:
    """Claim a requested run unless another execution has. May be repeated after a lost reply."""
    unclaimed = Q(execution=None, status__in=(Status.PENDING, Status.SENT))
    # No other process knows of a run that this process recorded.
    own = Q(execution=execution) if execution else Q(execution=None, status=Status.RUNNING)
    values = {
        "execution": execution,
        **_execution_values(start, execution),
        "started_at": Coalesce(F("started_at"), Now()),
        "finished_at": None,
        "reason": "",
    }
    if start.task and start.task.in_worker:
        values["sending_until"] = None
    claimable = Q(unclaimed | own, command=start.command, environment=start.environment)
    if start.task and start.task.in_worker:
        claimable &= Q(status__in=UNFINISHED)  # A queue may deliver a message again after the end of the run.
    if start.known is not None and _claim_known(start, start.known, execution):
        return start.known
    transition = partial(JobRun(pk=run_id).transition, Status.RUNNING, claimable, **values)
    if assign_execution_name(execution, transition):
        return JobRun.objects.get(pk=run_id)
    run = _find(run_id)
    if run is None:
        return _recreate(start, run_id, execution)
    return AlreadyClaimed(run) if _is_own(start, run) else _insert(start)


def _claim_known(start: Invocation, run: JobRun, execution: str | None) -> bool:
    """Claim a run of one task that has not started since its record was read, which is not read again."""
    is_single = run.task_count == 1 and run.elements is None
    is_own = (run.command, run.environment) == (start.command, start.environment)
    if not (is_single and is_own and run.status in UNSTARTED and run.cancel_requested_at is None):
        return False
    unchanged = Q(status__in=UNSTARTED, cancel_requested_at=None) & (Q(execution=execution) | Q(execution=None))
    values = {"execution": execution, "sending_until": None, **_execution_values(start, execution)}
    claim = partial(run.update_if, unchanged, status=Status.RUNNING, started_at=Now(), **values)
    return assign_execution_name(execution, claim)


def _claim_reduction(start: Invocation, task: CloudRunTask) -> JobRun | AlreadyClaimed:
    """Claim a run whose tasks have ended, for an execution that only calls `reduce()`."""
    run = _find(task.run_id)
    if run is None:
        return AlreadyClaimed(JobRun(pk=task.run_id, command=start.command, status=Status.LOST))
    if not _is_own(start, run):
        return _insert(start)
    values = _execution_values(start, task.execution)
    name = {"execution_name": values["execution_name"]} if "execution_name" in values else {}
    assign_execution_name(task.execution, partial(run.assign_reduction, task.execution, **name))
    run.refresh_from_db()
    is_mine = run.status == Status.RUNNING and run.execution == task.execution
    return run if is_mine else AlreadyClaimed(run)


def _is_own(start: Invocation, run: JobRun) -> bool:
    """Return True if the run is one of this command in this environment, False if it is one of another command.

    A job in a subprocess of another job has the variables of that one. Raises `InvalidRunId` for a run of this
    command in another environment, if the variable names it.
    """
    if run.command == start.command and run.environment != start.environment and start.task and start.task.run_id:
        expected = f"expected a run of the environment {start.environment!r}"
        message = f"{RUN_ID_VARIABLE}: {expected}, got {run.pk} of {run.environment!r}."
        hint = 'Give the container the CLOUDRUN_JOBS["ENVIRONMENT"] of the process that called delay().'
        raise InvalidRunId(message, hint=hint)
    return (run.command, run.environment) == (start.command, start.environment)


def _unstarted(start: Invocation, task: CloudRunTask) -> JobRun | None:
    """Return the run if it has not started, or has no record; a retry of a started run is never too late."""
    run = _find(task.run_id)
    if run is None:
        return JobRun(pk=task.run_id, command=start.command, status=Status.LOST)
    return run if _is_own(start, run) and run.status in {Status.PENDING, Status.LOST} else None


def _find(run_id: UUID | str) -> JobRun | None:
    return JobRun.objects.filter(pk=run_id).first()


def _execution_values(start: Invocation, execution: str | None) -> dict[str, Any]:
    """Return the number of tasks, and the execution's full name if the settings name project and region."""
    values: dict[str, Any] = {
        "task_count": start.task.count if start.task else 1,
        "reduces": start.reduces,
        "reduces_partial": start.reduces_partial,
    }
    settings = conf.load()
    if execution and start.task and not start.task.in_worker and settings.project and settings.region:
        parent = f"projects/{settings.project}/locations/{settings.region}/jobs/{start.task.job}"
        values["execution_name"] = f"{parent}/executions/{execution}"
    return values


def _container_values(start: Invocation) -> dict[str, Any]:
    """Return what a later execution of the run needs: the name of the job, and the script of its container."""
    if start.task is None or start.task.in_worker:
        return {}
    name = declared_name(start.task.job, start.command, start.environment)
    return {"job_name": name, "script": start.script}


def _recreate(start: Invocation, run_id: UUID, execution: str | None) -> JobRun | AlreadyClaimed:
    """Insert the record of a run again that was pruned, or is missing from a restored backup."""
    insert = partial(_insert, start, pk=run_id, execution=execution, trigger=Trigger.DELAY)
    try:
        run = assign_execution_name(execution, insert)
    except IntegrityError:
        if _find(run_id) is None:
            raise
        return _claim_requested(start, run_id, execution=execution)  # Another task of the execution inserted it.
    run_recreated.send_robust(JobRun, run=run)
    return run


def _claim_unrequested(start: Invocation, task: CloudRunTask) -> JobRun | AlreadyClaimed:
    """Insert the run of an execution that a schedule or a user in the console started."""
    trigger = Trigger.SCHEDULE if task.schedule else Trigger.MANUAL
    insert = partial(_insert, start, execution=task.execution, trigger=trigger)
    try:
        run: JobRun | AlreadyClaimed = assign_execution_name(task.execution, insert)
    except IntegrityError:  # Another task, or an earlier attempt of this one, inserted it.
        run_id = JobRun.objects.get(execution=task.execution).pk
        run = _claim_requested(start, run_id, execution=task.execution)
    tick = ScheduleTick.decode(task.schedule)
    # A run without an execution is that of another command in the same container.
    if isinstance(run, AlreadyClaimed) or tick is None or run.schedule or not run.execution:
        return run
    return _claim_tick(run, tick)


def _claim_tick(run: JobRun, tick: ScheduleTick) -> JobRun | AlreadyClaimed:
    """Record the tick of the schedule, or skip the run if another execution has claimed the tick."""
    due = tick.due(run.created_at)
    try:
        with database.savepoint():
            run.update_if(Q(), schedule=tick.scheduler_job, scheduled_for=due)
    except IntegrityError:
        job = {"command": run.command, "environment": run.environment}
        first = JobRun.objects.get(**job, schedule=tick.scheduler_job, scheduled_for=due)
        # The status of the first run may change: the first task decides, and sets the schedule or the status.
        if first.status in {*FAILED, Status.CANCELLED}:
            # Its work is not done, and the user has started it again.
            works = run.update_if(~Q(status=Status.SKIPPED), schedule=tick.scheduler_job)
            return run if works else AlreadyClaimed(first)
        message = f"The tick of {due:%F %T %Z} is the run of {first.execution}. {REPEAT_TICK_HINT % run.job}"
        values = {"reason": "same_tick", "error_message": message, "finished_at": Now()}
        skipped = run.transition(Status.SKIPPED, Q(schedule=None), **values)
        works = not skipped and JobRun.objects.filter(pk=run.pk).exclude(schedule=None).exists()
        return run if works else AlreadyClaimed(first)
    return run


def _insert_triggered(start: Invocation) -> JobRun | AlreadyClaimed:
    """Insert the run of a request, or return the run that an earlier delivery of the same tick has started.

    The tick of a failed run passes to this one. So does the tick of a run started by hand, once it is due.
    """
    own, due = Q(pk=start.values["pk"]), start.values["scheduled_for"]
    tick, passes = Q(pk__in=()), Q(status__in=FAILED)
    if due is not None:
        tick = Q(command=start.command, environment=start.environment, scheduled_for=due)
        tick &= Q(schedule=start.values["schedule"])
        passes |= started_by_hand(due)
    while True:
        try:
            return _insert(start, **start.values)
        except IntegrityError:
            first = JobRun.objects.filter(own | tick).first()
            if first is None:
                raise
        if first.pk == start.values["pk"]:
            return first  # The reply to the insert was lost.
        if not first.update_if(passes, scheduled_for=None) and JobRun.objects.filter(tick, pk=first.pk).exists():
            return AlreadyClaimed(first)


def started_by_hand(due: datetime) -> Q:
    """Match a run that Cloud Scheduler started by hand before the due time, which is that of the next tick."""
    return Q(created_at__lt=due - CLOCK_TOLERANCE, scheduled_for__lte=Now() + CLOCK_TOLERANCE)


def _insert(start: Invocation, **values: Any) -> JobRun:
    """Insert the record of a run that starts now."""
    fields = {
        "command": start.command,
        "environment": start.environment,
        "argv": start.argv,
        "trigger": Trigger.MANUAL,
        "requested_by": current_requester(),
        "status": Status.RUNNING,
        "started_at": Now(),
        **_execution_values(start, values.get("execution")),
        **_container_values(start),
        **values,
    }
    run = JobRun(**fields)
    database.insert(run)
    return run
