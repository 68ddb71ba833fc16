"""One attempt of one task of a run, as the process that makes it records it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from uuid import UUID, uuid4

from django.db import Error, IntegrityError
from django.db.models import Count, F, Model, Q

from cloudrun_jobs.environ import CloudRunTask
from cloudrun_jobs.exceptions import JobInterrupted, RecordUnavailable
from cloudrun_jobs.execution import deadlines
from cloudrun_jobs.execution.claim import AlreadyClaimed, Invocation, claim
from cloudrun_jobs.execution.heartbeat import Heartbeat
from cloudrun_jobs.execution.outcome import Outcome, outcome_of
from cloudrun_jobs.execution.results import combined_results
from cloudrun_jobs.execution.termination import Termination
from cloudrun_jobs.models import JobRun, Status, TaskRun
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.models.statuses import FINISHED
from cloudrun_jobs.runs import database
from cloudrun_jobs.runs.database import insert
from cloudrun_jobs.signals import run_record_failed
from cloudrun_jobs.spec import JobSpec

# Tasks that no further attempt has anything to do for.
DONE = (Status.SUCCEEDED, Status.SKIPPED, Status.CANCELLED)

# What a run of several tasks comes to: the first of these that one of them came to.
WORST_FIRST = (Status.CANCELLED, Status.FAILED, Status.SUCCEEDED, Status.SKIPPED)

NO_ERROR = {"error_class": "", "error_message": "", "traceback": ""}

# The attempts of this process, whichever thread makes them: a job that another calls is a run of its own.
_under_way: list[Attempt] = []


class Attempt:
    """What this process does of a run. `result` is what `run()` returned, in JSON form."""

    def __init__(self, run: JobRun, task: TaskRun, *, tasks: int, retries: bool) -> None:
        self.run = run
        self.result: Any = None
        self.heartbeat = Heartbeat(task)
        self._task = task
        self._tasks = tasks
        self._retries = retries  # Whether Cloud Run tries again if this attempt fails.
        self._pid = os.getpid()
        self._in_transaction = database.in_transaction()  # The caller's.
        self._ended: Outcome | None = None
        self._is_ending = False

    def skip(self, lock: str, holders: Sequence[object]) -> None:
        """End it without work: the lock is held by others."""
        words = f"{lock} is held by {'; '.join(map(str, holders)) or 'others'}"
        self._ended = Outcome(status=Status.SKIPPED, reason="lock_held", error_message=words)

    def succeed(self, result: Any) -> None:
        """Note what `run()` returned: the work is done, whatever comes before the record says so."""
        self.result = result
        self._ended = Outcome(status=Status.SUCCEEDED)

    def terminate(self, termination: Termination) -> None:
        """Record the end of a job that did not heed SIGTERM, and end the process before SIGKILL does.

        Called in the pulse's thread: the main one may never come back.
        """
        if self._is_ending:
            return
        ended = self._ended or outcome_of(termination.interrupted())
        try:
            self._record(ended, {})
        finally:
            os._exit(ended.exit_code)

    def end(self, error: BaseException | None) -> None:
        """Record how it ended. That this cannot be done makes no failure of work that was."""
        if os.getpid() != self._pid:
            return  # A fork of the job's process leaves by the same door.
        self._is_ending = True
        ended = self._ended or outcome_of(error)
        seconds = deadlines.RECORD_END_LIMIT_SECONDS
        if isinstance(error, JobInterrupted):
            seconds = deadlines.RECORD_END_AFTER_SIGTERM_LIMIT_SECONDS
        progress = self.heartbeat.stop()
        if not self._in_transaction:
            database.rollback_leftover_transaction()
        try:
            database.retry_until_available(lambda: self._record(ended, progress), seconds=seconds)
        except (RecordUnavailable, Error) as failed:
            self._say_at_least(ended)
            run_record_failed.send_robust(JobRun, run=self.run, error=failed)

    def _say_at_least(self, ended: Outcome) -> None:
        """Let the object say what the row does not, as far as this one attempt decides it."""
        values: dict[str, Any] = _error(ended)
        if self._tasks == 1 and not self._goes_on(ended):
            values |= {"status": ended.status, "reason": ended.reason, "result": self.result}
        for name, value in values.items():
            setattr(self.run, name, value)

    def _goes_on(self, ended: Outcome) -> bool:
        return ended.may_be_retried and self._retries

    def _record(self, ended: Outcome, progress: dict[str, object]) -> None:
        if ended.reason == "timeout" and self._was_cancelled():
            ended = ended._replace(status=Status.CANCELLED, reason="cancelled")
        goes_on = self._goes_on(ended)
        if not self._write_task(ended, progress, goes_on=goes_on):
            if TaskRun.objects.filter(pk=self._task.pk).exists():
                return  # A later attempt took over; what this one thinks is of no use any more.
            self._restore()
            self._write_task(ended, progress, goes_on=goes_on)
        if goes_on:
            # The error stays if nobody tries again: the job may be deployed with fewer retries than it declares.
            self.run.update_if(Q(status=Status.RUNNING), retried_count=F("retried_count") + 1, **_error(ended))
        elif self._tasks == 1:
            self._end_run(ended)
        else:
            self._end_with_the_others(ended)

    def _was_cancelled(self) -> bool:
        """Say whether somebody cancelled the run here: SIGTERM does not tell why it comes."""
        return JobRun.objects.filter(pk=self.run.pk).exclude(cancel_requested_at=None).exists()

    def _write_task(self, ended: Outcome, progress: dict[str, object], *, goes_on: bool) -> bool:
        mine = TaskRun.objects.filter(pk=self._task.pk, worker=self._task.worker)
        return bool(
            mine.update(
                status=Status.RUNNING if goes_on else ended.status,
                reason=ended.reason,
                exit_code=ended.exit_code,
                result=self.result,
                finished_at=None if goes_on else Now(),
                **progress,
            )
        )

    def _restore(self) -> None:
        """Make the rows again that somebody deleted while the work went on."""
        if not JobRun.objects.filter(pk=self.run.pk).exists():
            self.run = JobRun(**{"started_at": Now(), **_known(self.run), "status": Status.RUNNING})
            with suppress(IntegrityError):  # Another task of the execution made it.
                insert(self.run)
            run_record_failed.send_robust(JobRun, run=self.run, error=LookupError("its record had been deleted"))
        self._task = TaskRun(**{**_known(self._task), "id": None})
        insert(self._task)

    def _end_run(self, ended: Outcome) -> None:
        self._move(
            ended.status,
            reason=ended.reason,
            result=self.result,
            succeeded_count=int(ended.status == Status.SUCCEEDED),
            failed_count=int(ended.status == Status.FAILED),
            cancelled_count=int(ended.status == Status.CANCELLED),
            **_error(ended),
        )

    def _end_with_the_others(self, ended: Outcome) -> None:
        """Count what is done. The last task to end ends the run; of two that are last, both may."""
        if ended.error_class:
            self.run.update_if(Q(status=Status.RUNNING, error_class=""), **_error(ended))
        tasks = TaskRun.objects.filter(run=self.run.pk)
        counts: dict[str, int] = dict(tasks.values_list("status").annotate(Count("pk")).order_by())
        values: dict[str, Any] = {
            f"{status}_count": counts.get(status, 0)
            for status in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)
        }
        if sum(counts.get(status, 0) for status in FINISHED) < self._tasks:
            self.run.update_if(Q(status=Status.RUNNING), **values)
            return
        status = next(s for s in WORST_FIRST if counts.get(s))
        reason = "" if status == Status.SUCCEEDED else ended.reason or "task"
        if status == Status.SUCCEEDED:
            values |= NO_ERROR
        self._move(status, reason=reason, result=combined_results(tasks), **values)

    def _move(self, to: Status, **values: Any) -> None:
        """End the run, or see how somebody else did."""
        if not self.run.transition(to, finished_at=Now(), **values):
            self.run = JobRun.objects.filter(pk=self.run.pk).first() or self.run


def _known(row: Model) -> dict[str, Any]:
    """Return the fields of a row that were read from it, or written to it by this process."""
    names = (field.attname for field in row._meta.concrete_fields)
    return {name: row.__dict__[name] for name in names if name in row.__dict__}


def _error(ended: Outcome) -> dict[str, str]:
    return {
        "error_class": ended.error_class,
        "error_message": ended.error_message,
        "traceback": ended.traceback,
    }


@contextmanager
def record_attempt(
    start: Invocation, spec: JobSpec, termination: Termination
) -> Iterator[Attempt | AlreadyClaimed]:
    """Claim the run and record how the block ends; give `Taken` if the run is not this process's to do.

    Raises `RecordUnavailable` and `InvalidRunId` before the block.
    """
    worker = uuid4()
    claimed = database.retry_until_available(
        lambda: _claim(start, spec, worker), seconds=deadlines.RECORD_START_LIMIT_SECONDS
    )
    if isinstance(claimed, AlreadyClaimed):
        yield claimed
        return
    _under_way.append(claimed)
    claimed.heartbeat.start(termination, claimed.terminate)
    error: BaseException | None = None
    try:
        yield claimed
    except BaseException as raised:
        error = raised
        raise
    finally:
        _under_way.remove(claimed)
        claimed.end(error)


def is_nested() -> bool:
    """Say whether this code is part of a run already."""
    return bool(_under_way)


def _claim(start: Invocation, spec: JobSpec, worker: UUID) -> Attempt | AlreadyClaimed:
    run = claim(start)
    if isinstance(run, AlreadyClaimed):
        return run
    # Outside of an execution, or in one that is another command's, there is one task, and one attempt.
    task = start.task if run.execution else None
    row = _claim_task(run, task, worker)
    if row is None:
        return AlreadyClaimed(run)
    retries = task is not None and task.attempt < spec.max_retries
    return Attempt(run, row, tasks=task.count if task else 1, retries=retries)


def _claim_task(run: JobRun, task: CloudRunTask | None, worker: UUID) -> TaskRun | None:
    """Make the task's row, or take it over from an earlier attempt; return None if it is another process's."""
    index, attempt = (task.index, task.attempt) if task else (0, 0)
    row = TaskRun(run=run, index=index, attempt=attempt, worker=worker)
    try:
        insert(row)
    except IntegrityError:
        return _take_over(row)
    return row


def _take_over(row: TaskRun) -> TaskRun | None:
    """Take over from an attempt that ended badly or is silent, or from this one's own lost answer."""
    tasks = TaskRun.objects.filter(run=row.run_id, index=row.index)
    unfinished = tasks.filter(Q(attempt__lt=row.attempt) | Q(worker=row.worker)).exclude(status__in=DONE)
    taken = unfinished.update(
        attempt=row.attempt,
        worker=row.worker,
        status=Status.RUNNING,
        reason="",
        exit_code=None,
        started_at=Now(),
        finished_at=None,
        heartbeat_at=Now(),
    )
    return tasks.get() if taken else None
