"""Record the attempts of this process: claim a task, and write the outcome of the work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from uuid import UUID, uuid4

from django.db import IntegrityError, transaction
from django.db.models import Case, Count, F, Q, Subquery, When

from cloudrun_jobs.environ import CloudRunTask, current_task
from cloudrun_jobs.execution import deadlines
from cloudrun_jobs.execution.attempt import Attempt
from cloudrun_jobs.execution.claim import AlreadyClaimed, Invocation, claim
from cloudrun_jobs.execution.reduction import Reduction
from cloudrun_jobs.execution.termination import Termination
from cloudrun_jobs.models import JobRun, Status, TaskRun
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.models.statuses import DONE, FINISHED
from cloudrun_jobs.runs import database
from cloudrun_jobs.spec import JobSpec

# Tasks with these statuses are not attempted again.
COMPLETE = (Status.SUCCEEDED, Status.SKIPPED, Status.CANCELLED)

# The attempts of this process, in any thread: a job that another job calls has a run of its own.
_active_attempts: list[Attempt] = []

# Whether an attempt is active in this thread: a worker may run several tasks at once.
_is_active: ContextVar[bool] = ContextVar("cloudrun_jobs_is_active", default=False)


@contextmanager
def record_attempt(
    start: Invocation, spec: JobSpec, termination: Termination
) -> Iterator[Attempt | AlreadyClaimed]:
    """Claim the run and record the outcome of the block; yield `AlreadyClaimed` if another process has the run.

    Raises `RecordUnavailable` and `InvalidRunId` before the block.
    """
    worker = uuid4()
    claimed = database.retry_until_available(
        lambda: _claim(start, spec, worker), seconds=deadlines.RECORD_START_LIMIT_SECONDS
    )
    if isinstance(claimed, AlreadyClaimed):
        yield claimed
        return
    _active_attempts.append(claimed)
    was_active = _is_active.set(True)
    claimed.heartbeat.start(termination, claimed.terminate)
    error: BaseException | None = None
    try:
        yield claimed
    except BaseException as raised:
        error = raised
        raise
    finally:
        _active_attempts.remove(claimed)
        _is_active.reset(was_active)
        claimed.end(error, termination)


def is_nested() -> bool:
    """Return True if a run is active in this process; in a worker, in this thread."""
    task = current_task()
    return _is_active.get() if task and task.in_worker else bool(_active_attempts)


def _claim(start: Invocation, spec: JobSpec, worker: UUID) -> Attempt | AlreadyClaimed:
    run = claim(start)
    if isinstance(run, AlreadyClaimed):
        return run
    if start.task and start.task.only_reduces and run.execution == start.task.execution:
        return _claim_reduction(start.task, spec, run, worker, is_partial=start.reduces_partial)
    # A run outside an execution, or inside that of another command, has one attempt, and one task or element.
    task = start.task if run.execution or start.run_id else None
    index, attempt, count = (task.index, task.attempt, task.count) if task else (0, 0, 1)
    reduction = Reduction(is_partial=start.reduces_partial) if start.reduces else None
    process = task.process if task else ""
    row = TaskRun(run=run, index=index, attempt=attempt, worker=worker, process=process)
    inserted = None if run.elements is not None else _insert(row)  # delay_many() has inserted the rows.
    claimed = inserted or _take_over(row)
    if claimed is not None and run.reducer is not None:
        run.update_if(Q(), reducer=None)  # A task that had ended runs again.
    if claimed is None and reduction and (claimed := _take_over_reduction(run, row)):
        reduction.is_taken_over = True
    if claimed is None:
        return AlreadyClaimed(run)
    if attempt:
        _count_retried(run)
    return Attempt(
        run,
        claimed,
        task_count=count,
        has_retries=bool(task and run.execution) and attempt - claimed.interruptions < spec.max_retries,
        scope=spec.lock_scope,
        reduction=reduction,
        in_worker=bool(process),
    )


def _claim_reduction(
    task: CloudRunTask, spec: JobSpec, run: JobRun, worker: UUID, *, is_partial: bool
) -> Attempt | AlreadyClaimed:
    """Return the attempt that calls `reduce()` in a separate execution. Its heartbeat is the first task's."""
    with transaction.atomic(using=database.database_alias()):
        row = TaskRun.objects.filter(run=run.pk).order_by("index").select_for_update().first()
        mine = Q(status=Status.RUNNING, execution=task.execution)
        claimed = {"reducer": worker, "reduce_attempts": F("reduce_attempts") + 1}
        if row is None or not run.update_if(mine & Q(reducer=run.reducer), **claimed):
            return AlreadyClaimed(run)
        TaskRun.objects.filter(pk=row.pk).update(worker=worker, process=task.process, heartbeat_at=Now())
    row.worker = worker
    reduction = Reduction(is_partial=is_partial, is_taken_over=True, has_execution=True)
    attempt = run.reduce_attempts - 1 if task.in_worker else task.attempt
    return Attempt(
        run,
        row,
        task_count=run.task_count,
        has_retries=attempt < spec.max_retries,
        scope=spec.lock_scope,
        reduction=reduction,
        in_worker=task.in_worker,
    )


def _insert(row: TaskRun) -> TaskRun | None:
    """Insert the row and return it; return None if the task has one."""
    try:
        database.insert(row)
    except IntegrityError:
        return None
    return row


def _take_over_reduction(run: JobRun, row: TaskRun) -> TaskRun | None:
    """Take over `reduce()` from an earlier attempt, if the task itself has already run."""
    with transaction.atomic(using=database.database_alias()):
        tasks = TaskRun.objects.filter(run=run.pk)
        own = tasks.filter(Q(attempt__lt=row.attempt) | Q(worker=row.worker), index=row.index)
        done = own.filter(status__in=DONE).select_for_update().first()
        if done is None or tasks.filter(status__in=FINISHED).count() < run.task_count:
            return None
        free = Q(reducer=None) | Q(reducer__in=(done.worker, row.worker))
        if not run.update_if(free & Q(status=Status.RUNNING), reducer=row.worker):
            return None
        own.update(attempt=row.attempt, worker=row.worker, heartbeat_at=Now())
    return tasks.get(index=row.index)


def _count_retried(run: JobRun) -> None:
    """Count the tasks that have been retried, as Cloud Run does: an attempt that was killed recorded nothing."""
    retried = TaskRun.objects.filter(run=run.pk, attempt__gt=0).values("run")
    run.update_if(Q(), retried_count=Subquery(retried.annotate(count=Count("pk")).values("count")))


def _take_over(row: TaskRun) -> TaskRun | None:
    """Take over from an incomplete earlier attempt, or confirm this process's own claim; else return None."""
    tasks = TaskRun.objects.filter(run=row.run_id, index=row.index)
    earlier = Q(attempt__lt=row.attempt) | Q(worker=row.worker) | Q(status=Status.PENDING)
    unfinished = tasks.filter(earlier).exclude(status__in=COMPLETE)
    # An attempt without an exit code was killed; it is treated as one that ran.
    has_worked = When(~Q(status=Status.PENDING), attempt__lt=row.attempt, exit_code=None, then=True)
    taken = unfinished.update(
        admitted=Case(has_worked, default=F("admitted")),  # First: MariaDB assigns left to right.
        attempt=row.attempt,
        worker=row.worker,
        process=row.process,
        status=Status.RUNNING,
        reason="",
        exit_code=None,
        error_class="",
        error_message="",
        started_at=Now(),
        finished_at=None,
        heartbeat_at=Now(),
    )
    return tasks.get() if taken else None
