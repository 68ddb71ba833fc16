"""Record one attempt of one task of a run."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import Error, IntegrityError
from django.db.models import Case, Count, F, Max, Model, Q, When
from django.db.models.functions import Coalesce

from cloudrun_jobs.environ import COUNT_VARIABLE, INDEX_VARIABLE
from cloudrun_jobs.exceptions import JobInterrupted, RecordTablesMissing, RecordUnavailable
from cloudrun_jobs.execution import deadlines
from cloudrun_jobs.execution.heartbeat import Heartbeat
from cloudrun_jobs.execution.outcome import MAX_MESSAGE, Outcome, outcome_of
from cloudrun_jobs.execution.reduction import Reduction
from cloudrun_jobs.execution.results import combined_results
from cloudrun_jobs.execution.termination import Termination
from cloudrun_jobs.models import ItemChunk, JobRun, Status, TaskRun
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.models.runs import ALWAYS
from cloudrun_jobs.models.statuses import FINISHED, ITEMS, SIGTERM_REASONS
from cloudrun_jobs.runs import database
from cloudrun_jobs.signals import run_record_failed
from cloudrun_jobs.spec.shares import Share, Shares

if TYPE_CHECKING:
    from cloudrun_jobs.locks.requests import LockRequest

# The outcome of a run with several tasks is the first of these that one of its tasks has.
OUTCOME_PRECEDENCE = (Status.CANCELLED, Status.FAILED, Status.SUCCEEDED, Status.SKIPPED)


class Attempt:
    """One attempt of a task by this process. `result` is what `run()` returned, in JSON form."""

    def __init__(
        self,
        run: JobRun,
        task: TaskRun,
        *,
        task_count: int,
        has_retries: bool,
        scope: str,
        reduction: Reduction | None = None,
        in_worker: bool = False,
    ) -> None:
        self.run = run
        self.task_count = task_count
        self.share = _share(run, task.index, task_count)
        self.is_element = run.elements is not None  # Of `delay_many()`: the task has its own arguments.
        # Whether all tasks of an execution hold the same locks.
        self.shares_locks = task_count > 1 and scope == "execution" and run.execution is not None
        self.result: Any = None
        self.reduction = reduction
        self.heartbeat = Heartbeat(task, follows_cancellation=run.execution is None or in_worker)
        self.heartbeat.outlasts_task = self.only_reduces
        self._task = task
        self._has_retries = has_retries
        self._in_worker = in_worker  # Of a queue, which delivers the task again if the worker is shut down.
        self._pid = os.getpid()
        self.in_transaction = database.in_transaction()  # The caller's.
        self._outcome: Outcome | None = None
        self._is_ending = False
        self._has_ended_run = False
        self._has_retried_tasks = False
        self.lock_requests: list[LockRequest] = []  # Of this attempt, in their order.
        self.ends_process = False  # Whether the process ends with the attempt.

    @property
    def worker(self) -> UUID:
        """The id of this process in the record of the task."""
        return self._task.worker

    @property
    def task_index(self) -> int:
        return self._task.index

    @property
    def is_retry(self) -> bool:
        return self._task.attempt > 0

    @property
    def recorded_progress(self) -> int:
        """The progress that earlier attempts of the task have recorded."""
        return self._task.progress_done or 0

    @property
    def admitted(self) -> bool | None:
        """Whether the attempt runs (True) or is skipped (False); None while undecided."""
        return (self.run if self._shares_decision else self._task).admitted

    @property
    def _shares_decision(self) -> bool:
        return self.shares_locks and not self.is_element

    def decide(self, admitted: bool, message: str = "") -> bool:
        """Decide whether the attempt works, unless that is decided already; return the decision.

        Tasks that share their locks share the decision: the first one writes it into the record of the run. A
        decision of one task is recorded with its outcome.
        """
        if self.admitted is None and self._shares_decision:
            work = partial(self._record_decision, admitted, {"error_message": message} if message else {})
            database.retry_until_available(work, seconds=deadlines.RECORD_START_LIMIT_SECONDS)
        elif self.admitted is None:
            self._task.admitted = admitted
        return bool(self.admitted)

    def _record_decision(self, admitted: bool, values: Mapping[str, Any]) -> None:
        if not self.run.update_if(Q(admitted=None), admitted=admitted, **values):
            self._reload_run()
        if self.run.admitted is None:  # The record has been deleted.
            self.run.admitted = admitted

    @property
    def value(self) -> Any:
        """The result that this attempt knows: of `reduce()` if it has been called, otherwise of `run()`."""
        return self.reduction.value if self.reduction and self.reduction.outcome else self.result

    @property
    def only_reduces(self) -> bool:
        """Whether the attempt only calls `reduce()`: its task has already run."""
        return self.reduction is not None and self.reduction.is_taken_over

    @property
    def has_own_execution(self) -> bool:
        """Whether the execution was started for `reduce()` alone; its other tasks do nothing."""
        return self.reduction is not None and self.reduction.has_execution

    def has_no_work(self) -> bool:
        """Return True for a task of a rerun without a share and without items to claim: `run()` is not called."""
        if self.share.index is not None:
            return False
        from cloudrun_jobs.models import failures

        left = failures.chunks_of(self.run).exclude(status=ItemChunk.Status.DONE).exists
        return not database.retry_until_available(left, seconds=deadlines.RECORD_START_LIMIT_SECONDS)

    @property
    def share_variables(self) -> dict[str, str]:
        """The variables by which a job divides its work itself, if they differ from those of the container."""
        if self.run.shares is None or self.share.index is None:
            return {}
        return {INDEX_VARIABLE: str(self.share.index), COUNT_VARIABLE: str(self.share.count)}

    def skip(self, message: str) -> None:
        """End the attempt without work: another execution holds the lock."""
        self._outcome = Outcome(status=Status.SKIPPED, reason="lock_held", error_message=message)

    def cancel(self) -> None:
        """End the attempt without work: the run's cancellation was requested before it began."""
        message = "The run was cancelled before this attempt began."
        self._outcome = Outcome(status=Status.CANCELLED, reason="cancelled", error_message=message)
        if self.reduction:
            self.reduction.end(self._outcome)

    def give_up(self, outcome: Outcome) -> None:
        """End the task without work, and without another attempt: it cannot start, or has used up its retries."""
        self._outcome = outcome
        self._has_retries = False
        if self.reduction:
            self.reduction.end(outcome)

    def succeed(self, result: Any) -> None:
        """Keep what `run()` returned: an interrupt before it is recorded does not make the work fail."""
        self.result = result
        self._outcome = Outcome(status=Status.SUCCEEDED)

    def terminate(self, termination: Termination) -> None:
        """Record the outcome of a job that ignored SIGTERM, and exit before SIGKILL.

        The heartbeat's thread calls this: the main thread may be blocked.
        """
        if self._is_ending:
            return
        interrupted = outcome_of(termination.interrupted())
        outcome = self._outcome or interrupted
        if self.reduction:
            self.reduction.end(interrupted)
        try:
            self._record(outcome, {})
            self.ends_process = True
            self._release_locks(outcome, time.monotonic(), termination)
        finally:
            os._exit(self._decisive(outcome).exit_code)

    def end(self, error: BaseException | None, termination: Termination) -> None:
        """Record the outcome. A failure to record it does not make completed work fail."""
        if os.getpid() != self._pid:
            return  # A forked child also unwinds through here.
        self._is_ending = True
        outcome = self._outcome or outcome_of(error)
        if self.reduction:
            self.reduction.end(outcome_of(error))
        seconds = deadlines.RECORD_END_LIMIT_SECONDS
        if isinstance(error, JobInterrupted):
            seconds = deadlines.RECORD_END_AFTER_SIGTERM_LIMIT_SECONDS
        deadline = time.monotonic() + seconds
        progress = self.heartbeat.stop()
        if not self.in_transaction:
            database.rollback_leftover_transaction()
        try:
            database.retry_until_available(lambda: self._record(outcome, progress), seconds=seconds)
        except (RecordUnavailable, RecordTablesMissing, Error) as failed:
            self._copy_to_run(outcome)
            run_record_failed.send_robust(JobRun, run=self.run, error=failed)
        self._release_locks(outcome, deadline, termination)

    def _release_locks(self, outcome: Outcome, deadline: float, termination: Termination) -> None:
        """Release what is not known to be released; nothing of an execution that is over stays locked.

        A release is not repeated after SIGTERM: SIGKILL would follow, and fail a task whose work is recorded.
        """
        from cloudrun_jobs.locks.timer import timer  # Not needed before the work.

        requests, seconds = self.lock_requests, max(0.0, deadline - time.monotonic())
        # Earlier attempts, other tasks, lost replies, and a process that ends with a lock, may have left some.
        may_hold = bool(self._task.attempt) or self._has_retried_tasks
        may_hold |= not all(request.is_free for request in requests)
        may_hold |= self.task_count > 1 and not requests
        # A process that goes on may hold locks around its jobs.
        is_alone = self.ends_process or not timer.is_watching
        if self._has_ended_run and self.run.execution and is_alone and (may_hold or timer.is_watching):
            from cloudrun_jobs.locks.executions import release_execution

            is_interrupted = termination.is_requested
            release_execution(self.run, self.run.execution, seconds=seconds, is_interrupted=is_interrupted)
            return
        if any(request.is_held for request in requests):
            from cloudrun_jobs.locks.acquire import release_all

            is_final = not self._is_retried(outcome)
            release_all(requests, finished=is_final, seconds=seconds, is_interrupted=termination.is_requested)

    def _copy_to_run(self, outcome: Outcome) -> None:
        """Copy the outcome onto the in-memory run when the row could not be updated."""
        outcome = self._decisive(outcome)
        values: dict[str, Any] = outcome.error
        if self.task_count == 1 and not self._is_retried(outcome):
            values |= {"status": outcome.status, "reason": outcome.reason, "result": self.value}
        for name, value in values.items():
            setattr(self.run, name, value)

    def _decisive(self, outcome: Outcome) -> Outcome:
        """Return the outcome of the attempt: that of `reduce()` if it has been called, otherwise of the task."""
        return (self.reduction and self.reduction.outcome) or outcome

    def _is_retried(self, outcome: Outcome) -> bool:
        decisive = self._decisive(outcome)
        return decisive.status == Status.FAILED and (self._has_retries or self._is_interruption(decisive))

    def _is_interruption(self, outcome: Outcome) -> bool:
        """Return True if the queue worker was shut down: another worker repeats the attempt."""
        return self._in_worker and outcome.reason == "interrupted"

    def begin_reduction(self, error: BaseException | None = None) -> bool:
        """Record that the work of the task has ended; return True if this process must call `reduce()`.

        It must if the task is the last one of the run to end. `error` is the exception that ended the work.
        """
        outcome = self._outcome or outcome_of(error)
        reduction = self.reduction
        if reduction is None or self._is_retried(outcome) or not reduction.may_follow(outcome, error):
            return False
        self._outcome = outcome
        if not self.in_transaction:
            database.rollback_leftover_transaction()
        begins = database.retry_until_available(
            partial(self._begin_reduction, reduction, outcome), seconds=deadlines.RECORD_END_LIMIT_SECONDS
        )
        reduction.is_begun = begins
        self.heartbeat.outlasts_task |= begins
        return begins

    def reduce(self, value: Any) -> None:
        """Keep what `reduce()` returned."""
        if self.reduction:
            self.reduction.value = value
            self.reduction.end(Outcome(status=Status.SUCCEEDED))

    def _begin_reduction(self, reduction: Reduction, outcome: Outcome) -> bool:
        if not reduction.is_taken_over:
            if not self._record_task(outcome, {}):
                return False
            if outcome.error_class:
                self.run.update_if(Q(status=Status.RUNNING, error_class=""), **outcome.error)
        status, _ = self._ending(outcome)
        if status is None or not reduction.follows(status):
            return False
        free = (Q(reducer=None) | Q(reducer=self.worker)) & Q(status__in=(Status.RUNNING, Status.LOST))
        return self.run.transition(Status.RUNNING, free, reducer=self.worker, reason="", finished_at=None)

    def _record(self, outcome: Outcome, progress: dict[str, object]) -> None:
        if self.reduction and self.reduction.is_taken_over:
            self._end_reduction(self.reduction, outcome)
            return
        outcome = self._unless_cancelled(outcome)
        if not self._record_task(outcome, progress):
            return
        if self.reduction and self.reduction.outcome:
            self._end_reduction(self.reduction, outcome)
        elif self._is_retried(outcome):
            # The error stays if no retry follows: the job may be deployed with fewer retries than it declares.
            self.run.update_if(Q(status=Status.RUNNING), **outcome.error)
        elif self.task_count == 1:
            values = {**_count_fields({outcome.status: 1}), **outcome.error}
            if self.reduction and outcome.status == Status.SUCCEEDED:
                # `reduce()` was not called.
                if not self.run.update_if(Q(status=Status.RUNNING), **values):
                    self._reload_run()
                return
            self._end_run(outcome.status, reason=outcome.reason, result=self.result, **values)
        else:
            self._count_tasks(outcome)

    def _unless_cancelled(self, outcome: Outcome) -> Outcome:
        # SIGTERM does not say why the task has to end; the record does, after cancel().
        cancelled = JobRun.objects.filter(pk=self.run.pk).exclude(cancel_requested_at=None)
        if outcome.reason in SIGTERM_REASONS and cancelled.exists():
            message = "The run was cancelled."
            return outcome._replace(status=Status.CANCELLED, reason="cancelled", error_message=message)
        return outcome

    def _record_task(self, outcome: Outcome, progress: dict[str, object]) -> bool:
        """Write the outcome into the row of the task; return False if a later attempt has taken over."""
        if not self._update_task(outcome, progress):
            if TaskRun.objects.filter(pk=self._task.pk).exists():
                return False
            self._recreate_rows()
            self._update_task(outcome, progress)
        return True

    def _update_task(self, outcome: Outcome, progress: dict[str, object]) -> bool:
        is_interruption = self._is_interruption(outcome)
        is_retried = outcome.status == Status.FAILED and (self._has_retries or is_interruption)
        # Once: the reply to an earlier update may have been lost.
        count = F("interruptions") + Case(When(exit_code=None, then=1), default=0)
        mine = TaskRun.objects.filter(pk=self._task.pk, worker=self._task.worker)
        return bool(
            mine.update(
                **({"interruptions": count} if is_interruption else {}),  # First: MariaDB assigns left to right.
                status=Status.RUNNING if is_retried else outcome.status,
                reason=outcome.reason,
                exit_code=outcome.exit_code,
                error_class=outcome.error_class,
                error_message=outcome.error_message,
                admitted=self.admitted,
                result=self.result,
                finished_at=None if is_retried else Coalesce(F("finished_at"), Now()),
                **progress,
            )
        )

    def _recreate_rows(self) -> None:
        """Insert rows again that were deleted during the attempt."""
        if not JobRun.objects.filter(pk=self.run.pk).exists():
            self.run = JobRun(**{"started_at": Now(), **_loaded_values(self.run), "status": Status.RUNNING})
            with suppress(IntegrityError):  # Another task of the execution has inserted it.
                database.insert(self.run)
            run_record_failed.send_robust(JobRun, run=self.run, error=LookupError("its record had been deleted"))
        self._task = TaskRun(**{**_loaded_values(self._task), "id": None})
        database.insert(self._task)

    def _count_tasks(self, outcome: Outcome) -> None:
        """Count the finished tasks. The last one ends the run; if two finish at once, both may."""
        if outcome.error_class:
            self.run.update_if(Q(status=Status.RUNNING, error_class=""), **outcome.error)
        status, values = self._ending(outcome)
        if status is None or (self.reduction and self.reduction.follows(status)):
            # The task that began `reduce()`, or an execution that `reconcile` starts, ends the run.
            self.run.update_if(Q(status=Status.RUNNING), **_without_error(values))
            return
        tasks = TaskRun.objects.filter(run=self.run.pk)
        self._end_run(status, result=combined_results(tasks), **values)

    def _ending(self, outcome: Outcome) -> tuple[Status | None, dict[str, Any]]:
        """Return the status with which the tasks end the run, or None, and the fields to write with it."""
        tasks = TaskRun.objects.filter(run=self.run.pk)
        found = list(tasks.values_list("status").annotate(Count("pk"), Max("attempt")).order_by())
        counts: dict[str, int] = {status: count for status, count, _ in found}
        self._has_retried_tasks = any(attempt for *_, attempt in found)
        values = _count_fields(counts)
        missing = self.task_count - sum(counts.get(status, 0) for status in FINISHED)
        if missing > 0 and self.reduction and self.reduction.has_execution:
            counts[Status.FAILED] = counts.get(Status.FAILED, 0) + missing  # They never started.
        elif missing > 0:
            return None, values
        status = next(s for s in OUTCOME_PRECEDENCE if counts.get(s))
        values["reason"] = "" if status == Status.SUCCEEDED else outcome.reason or "task"
        if status == Status.SUCCEEDED:
            values |= Outcome(status).error  # Clears the error of an earlier attempt.
        return status, values

    def _end_reduction(self, reduction: Reduction, outcome: Outcome) -> None:
        """End the run with the result or the error of `reduce()`; with retries left, an error keeps it running."""
        status, values = self._ending(outcome)
        mine = Q(reducer=self.worker)
        reduced = self._unless_cancelled(reduction.outcome or outcome)
        if self._is_retried(reduced):
            self.run.update_if(mine & Q(status=Status.RUNNING), **reduced.error, **self._give_back(reduced))
        elif reduced.status != Status.SUCCEEDED:
            reason = "reduce" if reduced.reason in {"error", "exit_code"} else reduced.reason
            self._end_run(reduced.status, mine, **{**values, **reduced.error, "reason": reason})
        elif status is not None and (reduction.is_begun or not reduction.follows(status)):
            self._end_run(status, mine, result=reduction.value, **values)

    def _give_back(self, reduced: Outcome) -> dict[str, Any]:
        """Return the fields of a run whose `reduce()` the queue delivers again. An interruption is no failure."""
        if not self._in_worker:
            return {}
        if not self._is_interruption(reduced):
            return {"reducer": None}
        if self.has_own_execution:
            return {"reducer": None, "reduce_attempts": F("reduce_attempts") - 1}
        mine = TaskRun.objects.filter(pk=self._task.pk, worker=self._task.worker)
        mine.update(interruptions=F("interruptions") + 1)
        return {"reducer": None}

    def _end_run(self, status: Status, condition: Q = ALWAYS, /, **values: Any) -> None:
        """End the run, or reload it if another process has ended it. If items are not done, the run has failed."""
        if status == Status.SUCCEEDED and self._succeed_without_items(condition, values):
            return
        from cloudrun_jobs.models import failures  # Most runs have no items.

        failures.correct_progress(self.run)
        if status == Status.SUCCEEDED and (message := failures.describe_undone_items(self.run)):
            error = {"reason": ITEMS, "error_message": message[:MAX_MESSAGE]}
            status, values = Status.FAILED, {**values, **error}
        if self.run.transition(status, condition, finished_at=Now(), **values):
            self._has_ended_run = True
        else:
            self._reload_run()
            # The reply to this process's own update may have been lost.
            is_mine = self.task_count == 1 or self.run.reducer == self.worker
            self._has_ended_run = is_mine and self.run.is_finished

    def _reload_run(self) -> None:
        self.run = JobRun.objects.filter(pk=self.run.pk).first() or self.run

    def _succeed_without_items(self, condition: Q, values: Mapping[str, Any]) -> bool:
        """End the run as succeeded, unless it may have items. Most runs have none, and need no query for them."""
        if self.run.shares is not None:
            return False
        has_none = condition & Q(items_total=None)
        self._has_ended_run = self.run.transition(Status.SUCCEEDED, has_none, finished_at=Now(), **values)
        return self._has_ended_run


def _share(run: JobRun, index: int, task_count: int) -> Share:
    """Return the share of the items that the task works on."""
    return Shares.decode(run.shares).of_task(index) if run.shares else Share(run.pk, index, task_count)


def _count_fields(counts: Mapping[str, int]) -> dict[str, Any]:
    counted = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)
    return {f"{status}_count": counts.get(status, 0) for status in counted}


def _without_error(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return only the counts among the fields to write."""
    return {name: value for name, value in values.items() if name.endswith("_count")}


def _loaded_values(row: Model) -> dict[str, Any]:
    """Return the values of the fields that this process has read from the row, or written to it."""
    names = (field.attname for field in row._meta.concrete_fields)
    return {name: row.__dict__[name] for name in names if name in row.__dict__}
