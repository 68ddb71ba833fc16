"""Call a job's `reduce()` when all tasks of a run have ended."""

from __future__ import annotations

from functools import partial
from inspect import iscoroutine
from typing import TYPE_CHECKING, Any

from cloudrun_jobs.exceptions import CloudRunJobsError, JobInterrupted
from cloudrun_jobs.execution import deadlines
from cloudrun_jobs.execution.results import to_json_value
from cloudrun_jobs.models import JobRun, Status, TaskRun
from cloudrun_jobs.models.statuses import DONE
from cloudrun_jobs.process.deferral import interruptible
from cloudrun_jobs.runs import database
from cloudrun_jobs.spec.shares import Shares

if TYPE_CHECKING:
    from cloudrun_jobs.execution.attempt import Attempt
    from cloudrun_jobs.execution.outcome import Outcome
    from cloudrun_jobs.spec.command import JobCommand


class Reduction:
    """The state of `reduce()` in one attempt of a task."""

    def __init__(self, *, is_partial: bool, is_taken_over: bool = False, has_execution: bool = False) -> None:
        self.is_partial = is_partial
        self.is_taken_over = is_taken_over  # From a process that died, after `run()`: it is not called again.
        self.has_execution = has_execution  # Whether the execution was started for `reduce()` alone.
        self.is_begun = False  # Whether this process calls `reduce()`.
        self.outcome: Outcome | None = None
        self.value: Any = None  # In JSON form.

    def may_follow(self, outcome: Outcome, error: BaseException | None) -> bool:
        """Return True if this process may call `reduce()` after its task has ended with this outcome."""
        if isinstance(error, JobInterrupted) or not isinstance(error, Exception | SystemExit | None):
            return False  # SIGKILL follows, or the locks are lost: `reconcile` starts an execution that calls it.
        return not self.is_begun and (outcome.status in DONE or self.follows(outcome.status))

    def follows(self, status: str) -> bool:
        """Return True if `reduce()` is called when the tasks would end the run with this status."""
        return status == Status.SUCCEEDED or (status == Status.FAILED and self.is_partial)

    def end(self, outcome: Outcome) -> None:
        """Keep the outcome of the call, unless one is known."""
        if (self.is_begun or self.is_taken_over) and self.outcome is None:
            self.outcome = outcome


def call_reduce(job: JobCommand, attempt: Attempt) -> Any:
    """Call `reduce()`, and return its result in JSON form."""
    collect = partial(results_of, attempt.run)
    results, failed = database.retry_until_available(collect, seconds=deadlines.RECORD_START_LIMIT_SECONDS)
    job._active.failed_tasks = failed
    value = interruptible(partial(_call, job, results))
    return to_json_value(job.command_name, value, function="reduce")


def _call(job: Any, results: list[Any]) -> Any:
    job._active.raise_if_interrupted()
    value = job.reduce(results)
    if not iscoroutine(value):
        return value
    from cloudrun_jobs.execution.coroutines import run_coroutine  # Most jobs are synchronous.

    return run_coroutine(value)


def results_of(run: JobRun) -> tuple[list[Any], tuple[int, ...]]:
    """Return the results of the run's tasks by index, with None for failed tasks, and the indexes of failed tasks.

    A rerun of failed tasks has the results of the first run with the new ones in place. The results of tasks
    without a share, which have only claimed items, follow at the end.
    """
    values: list[Any] = []
    more: list[Any] = []
    done: set[int] = set()
    for link in _chain(run):
        indexes = Shares.decode(link.shares).indexes if link.shares else tuple(range(link.task_count))
        values = values or [None] * len(indexes)
        rows = TaskRun.objects.filter(run=link.pk, status__in=DONE).order_by("index")
        for index, result in rows.values_list("index", "result"):
            if index < len(indexes):
                values[indexes[index]] = result
                done.add(indexes[index])
            elif result is not None:
                more.append(result)
    return [*values, *more], tuple(index for index in range(len(values)) if index not in done)


def _chain(run: JobRun) -> list[JobRun]:
    """Return the first run, its reruns, and this run, in their order."""
    chain = [run]
    while chain[0].shares:
        earlier = chain[0].rerun_of
        if earlier is None:
            message = f"{run}: reduce() needs the results of the run that it repeats, which was deleted."
            raise CloudRunJobsError(message, hint="Start a new run.")
        chain.insert(0, earlier)
    return chain
