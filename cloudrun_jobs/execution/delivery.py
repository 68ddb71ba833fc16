"""Run the task of a recorded run that a queue has delivered to this worker.

The record decides whether a delivery starts an attempt. A queue may deliver a message twice, while the task is
running, or after it has ended.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from django.db.models import Q

from cloudrun_jobs import conf
from cloudrun_jobs.environ import (
    ATTEMPT_VARIABLE,
    COUNT_VARIABLE,
    INDEX_VARIABLE,
    CloudRunTask,
    in_pool_process,
    task_set,
    variables_set,
)
from cloudrun_jobs.exceptions import JobInterrupted, LeaseLost, RecordTablesMissing, RecordUnavailable
from cloudrun_jobs.execution import interrupts
from cloudrun_jobs.execution.active import ActiveRun
from cloudrun_jobs.execution.attempt import Attempt
from cloudrun_jobs.execution.claim import Invocation
from cloudrun_jobs.execution.in_process import execute
from cloudrun_jobs.execution.outcome import Outcome, outcome_of
from cloudrun_jobs.execution.recording import record_attempt
from cloudrun_jobs.models import JobRun, Status, TaskRun, Trigger
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.models.querysets import HEARTBEAT_TIMEOUT
from cloudrun_jobs.models.statuses import DONE, FINISHED
from cloudrun_jobs.operations import PROCESS_DIED
from cloudrun_jobs.signals import run_reconciled
from cloudrun_jobs.spec.overrides import Overrides

if TYPE_CHECKING:
    from cloudrun_jobs.spec.command import JobCommand

#: The suffix of the name of an execution that only calls `reduce()`.
REDUCE = "reduce"

# A worker's clock may be ahead of the database's by as much, before a reserved run counts as too early.
MAX_EARLINESS = timedelta(seconds=10)

KILLED = 137  # The exit status of a process that SIGKILL has ended.


class Result(StrEnum):
    """The result of a delivery."""

    ENDED = "ended"  #: The task has ended, now or before. Its outcome is recorded.
    RUNNING = "running"  #: Another process runs the task.
    EARLY = "early"  #: The time of `reserve()` has not come: `reconcile` sends the run when it has.
    RETRY = "retry"  #: The attempt failed, and retries are left.
    INTERRUPTED = "interrupted"  #: The worker is being shut down: another worker has to repeat the attempt.
    UNAVAILABLE = "unavailable"  #: The database of the records was unavailable: the task has not started.


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The delivery of a task of a run, as its record was when the message arrived."""

    run: JobRun
    task: CloudRunTask  #: With the number of the attempt to make.
    is_due: bool = True  #: True if the attempt is to be made: the task neither runs nor has ended.
    is_early: bool = False  #: True if it is not due because the time of `reserve()` has not come.
    failures: int = 0  #: The number of failed attempts.
    last: Any = None  #: The record of the last attempt.


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of a delivery, and the error with which its attempt has ended."""

    result: Result
    error: BaseException | None = None


def receive(run: JobRun, index: int | None, process: str) -> Delivery:
    """Decide whether the delivery of a task starts an attempt. `index` is None for one that only calls `reduce()`.

    `process` names this worker process, such as "celery@host/1234". If two deliveries decide to start the same
    attempt, only one can claim it.
    """
    row = _row(run, index)
    is_new = row is None or row.status == Status.PENDING
    execution = str(run.pk) if index is not None else f"{run.pk}.{REDUCE}"
    task = CloudRunTask(
        job=run.job,
        execution=execution,
        index=index or 0,
        attempt=0 if is_new or index is None else row.attempt + 1,
        count=run.elements or run.task_count,
        run_id=str(run.pk),
        only_reduces=index is None,
        process=process,
    )
    if index is None:
        is_running = run.execution == execution and run.reducer and row is not None and not row.is_silent
        is_due = not (run.is_finished or is_running)
        return Delivery(run=run, task=task, is_due=is_due, failures=run.reduce_attempts)
    if is_new:
        is_early = _is_early(run)
        return Delivery(run=run, task=task, is_due=not (run.is_finished or is_early), is_early=is_early)
    # An attempt with an exit code has ended, and is to be repeated.
    is_running = row.exit_code is None and not row.is_silent
    has_ended = row.status in FINISHED and not _has_to_reduce(run, row)
    is_due = not (run.is_finished or has_ended or is_running)
    return Delivery(run=run, task=task, is_due=is_due, failures=row.attempt + 1 - row.interruptions, last=row)


def _row(run: JobRun, index: int | None) -> Any:
    """Return the record of the task, with `is_silent` if its heartbeat has timed out; None if it has none."""
    if run.status in {Status.PENDING, Status.SENT} and run.elements is None:
        return None
    is_silent = Q(heartbeat_at__lt=Now() - HEARTBEAT_TIMEOUT)
    rows = TaskRun.objects.filter(run=run.pk).annotate(is_silent=is_silent).defer("result").order_by("index")
    return rows.first() if index is None else rows.filter(index=index).first()


def _has_to_reduce(run: JobRun, row: TaskRun) -> bool:
    """Return True if an attempt of the task failed in `reduce()` and released it."""
    if not run.reduces or run.reducer is not None or run.tasks_execution_name or row.status not in DONE:
        return False
    return TaskRun.objects.filter(run=run.pk, status__in=FINISHED).count() >= run.task_count


def _is_early(run: JobRun) -> bool:
    """Return True if the reserved time has not come by the database's clock: a worker's own may be wrong."""
    if run.trigger != Trigger.RESERVE or run.status != Status.PENDING:
        return False
    return JobRun.objects.filter(pk=run.pk, scheduled_for__gt=Now() + MAX_EARLINESS).exists()


def deliver(job: JobCommand, delivery: Delivery) -> Report:
    """Make the attempt, if it is due, and return how it ended. `job` is a new instance of the run's command."""
    with conf.reading_once():
        return _deliver(job, delivery)


def _deliver(job: JobCommand, delivery: Delivery) -> Report:
    run, task, spec = delivery.run, delivery.task, job.spec
    if delivery.is_early:
        return Report(result=Result.EARLY)
    if not delivery.is_due:
        is_running = not run.is_finished and (delivery.last is None or delivery.last.status not in FINISHED)
        return Report(result=Result.RUNNING if is_running else Result.ENDED)
    start = Invocation(
        spec.command,
        spec.environment,
        run.argv,
        task=task,
        known=run,
        reduces=run.reduces,
        reduces_partial=run.reduces_partial,
    )
    with task_set(task):
        if delivery.failures > spec.max_retries:
            return _give_up(job, start, _outcome_of_last(delivery))
        worker = copy.copy(job)
        worker._active = active = ActiveRun(is_requested=True)
        active.trigger = start
        try:
            with variables_set(_variables(job, delivery)):
                execute(worker, active, _arguments(delivery))
        except RecordUnavailable as error:
            result = Result.UNAVAILABLE if active.run is None else _result(delivery, error)
            return Report(result=result, error=error)
        except RecordTablesMissing as error:
            return Report(result=Result.UNAVAILABLE, error=error)
        except (Exception, JobInterrupted, LeaseLost) as error:  # noqa: BLE001  (of run(); the record has it)
            if active.run is None and not isinstance(error, JobInterrupted):
                return _give_up(job, start, outcome_of(error)._replace(traceback=""), error)
            return Report(result=_result(delivery, error), error=error)
    return Report(result=Result.ENDED)


def _arguments(delivery: Delivery) -> list[str]:
    """Return the arguments after `manage.py`; those of an element of `delay_many()` are in its own record."""
    if delivery.run.elements is None:
        return list(delivery.run.argv or ())
    row = TaskRun.objects.filter(run=delivery.run.pk, index=delivery.task.index).first()
    if row is None or row.argv is None:
        message = f"The arguments of task {delivery.task.index} of run {delivery.run.pk} are not recorded."
        raise RecordUnavailable(message, hint="The record was deleted: call delay_many() again.")
    return list(row.argv)


def _variables(job: JobCommand, delivery: Delivery) -> dict[str, str]:
    """Return the environment variables that the job would have in a container of its own."""
    task, overrides = delivery.task, Overrides.decode(delivery.run.overrides)
    numbers = {INDEX_VARIABLE: task.index, COUNT_VARIABLE: task.count, ATTEMPT_VARIABLE: task.attempt}
    if task.count == 1 and not in_pool_process():
        numbers = {}  # Runs with variables wait for each other in threads.
    given = {name: str(number) for name, number in numbers.items()}
    return {**job.spec.env_vars, **overrides.env, **given}


def _result(delivery: Delivery, error: BaseException) -> Result:
    """Return the result of an attempt that has raised the error."""
    is_interruption = isinstance(error, JobInterrupted) and error.reason == "interrupted"
    interrupted = Result.INTERRUPTED if is_interruption else None
    if delivery.task.only_reduces:
        run = JobRun.objects.filter(pk=delivery.run.pk).first()
        return interrupted or Result.RETRY if run is not None and not run.is_finished else Result.ENDED
    row = TaskRun.objects.filter(run=delivery.run.pk, index=delivery.task.index).first()
    run = JobRun.objects.filter(pk=delivery.run.pk).first()
    if row is None or run is None or run.is_finished:
        return Result.ENDED
    if row.status == Status.RUNNING or _has_to_reduce(run, row):
        return interrupted or Result.RETRY
    return Result.ENDED


def _outcome_of_last(delivery: Delivery) -> Outcome:
    """Return the outcome of a task whose attempts are used up, and whose last one did not record its end."""
    # After `run()` has ended, the record of its task has nothing about `reduce()`.
    last = delivery.last if delivery.last and delivery.last.status == Status.RUNNING else TaskRun()
    return Outcome(
        status=Status.FAILED,
        exit_code=last.exit_code or KILLED,
        reason=last.reason or PROCESS_DIED.reason,
        error_class=last.error_class,
        error_message=last.error_message or PROCESS_DIED.message,
    )


def _give_up(job: JobCommand, start: Invocation, outcome: Outcome, error: BaseException | None = None) -> Report:
    """End the task with this outcome, without another attempt."""
    with interrupts.handle_signals() as termination, record_attempt(start, job.spec, termination) as attempt:
        if isinstance(attempt, Attempt):
            attempt.give_up(outcome)
    if isinstance(attempt, Attempt):
        run_reconciled.send_robust(JobRun, run=attempt.run)
    return Report(result=Result.ENDED, error=error)
