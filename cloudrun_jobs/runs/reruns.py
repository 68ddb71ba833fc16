"""Repeat the failed tasks and items of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn, TypeGuard

from django.db.models import F

from cloudrun_jobs.argv.redaction import is_redacted
from cloudrun_jobs.exceptions import RerunRefused
from cloudrun_jobs.models import ItemChunk, JobRun, TaskRun, failures
from cloudrun_jobs.models.statuses import DONE, FINISHED
from cloudrun_jobs.spec.shares import Shares

SECRETS = "secrets"  # `RerunRefused.reason`
WHOLE = "rerun() without failed_only repeats the whole run."


class Rerun(NamedTuple):
    """The parts of an earlier run that a new run repeats."""

    run: JobRun
    #: The shares of its failed tasks; None to repeat the whole run.
    shares: Shares | None = None
    tasks: int | None = None
    #: The arguments of the elements of `delay_many()`; empty for other runs.
    elements: Sequence[tuple[str, ...]] = ()

    @property
    def values(self) -> dict[str, Any]:
        """The fields of the new run."""
        return {} if self.shares is None else {"rerun_of": self.run, "shares": self.shares.encode()}


def is_command_line(arguments: Any) -> TypeGuard[list[str]]:
    """Return True if these recorded arguments can be given to a command again."""
    return isinstance(arguments, list) and all(isinstance(argument, str) for argument in arguments)


def repeat_all(run: JobRun) -> Rerun:
    """Return a rerun of the whole run. Raises `RerunRefused`."""
    _refuse_redacted(run, run.argv or ())
    return Rerun(run, elements=_elements(run, range(run.elements or 0)))


def repeat_failed(run: JobRun, *, task_parallelism: int, runs_in_process: bool) -> Rerun:
    """Return a rerun of the failed tasks and items. Raises `RerunRefused`."""
    if not run.is_finished:
        _refuse(run, "unfinished", f"it is {run.status}", "Wait until it ends, or cancel it.")
    _refuse_second(run)
    _refuse_redacted(run, run.argv or ())
    undone, shares = failures.undone_tasks(run), _shares(run)
    if not run.tasks.exists():
        if run.shares is None:
            _refuse(run, "not_started", "no task has started", WHOLE)
        undone = list(range(len(shares.indexes)))
    undone_chunks = failures.chunks_of(run).exclude(status=ItemChunk.Status.DONE)
    # Tasks beyond the shares have only claimed items.
    again = [index for index in undone if index < len(shares.indexes)]
    left = 0 if run.elements else undone_chunks.count()
    if run.elements:
        # Each has lists of its own: see `ActiveRun.next_call()`.
        with_items = {number % shares.count for number in undone_chunks.values_list("list__number", flat=True)}
        again = sorted({*again, *(index for index, own in enumerate(shares.indexes) if own in with_items)})
    is_unreduced = run.reduces and not run.elements and run.status not in DONE
    if not again and not left and not is_unreduced:
        _refuse(run, "nothing_failed", "nothing has failed", WHOLE)
    elements = _elements(run, again)
    # Cloud Run accepts no fewer tasks than `task_parallelism`; tasks without a share end at once.
    wanted = len(again) or min(run.task_count, left) or 1
    tasks = None if runs_in_process or elements else max(wanted, task_parallelism)
    return Rerun(run, shares._replace(indexes=tuple(shares.indexes[index] for index in again)), tasks, elements)


def claim(rerun: JobRun) -> None:
    """Lock the run whose failed tasks are repeated, until the end of the transaction. Raises `RerunRefused`."""
    # An UPDATE locks the row on every database: if two reruns start at once, the second finds the first.
    run = rerun.rerun_of
    if run is None or not JobRun.objects.filter(pk=run.pk, status__in=FINISHED).update(status=F("status")):
        _refuse(run or rerun, "unfinished", "it was deleted, or has started again", "")
    _refuse_second(run, rerun)


def reopen_items(rerun: JobRun) -> None:
    """Let the new run claim the items that are not done, with all of their retries."""
    left = failures.chunks_of(rerun).exclude(status=ItemChunk.Status.DONE)
    left.update(status=ItemChunk.Status.OPEN, tries=0, worker=None, task_index=None, leased_until=None)


def _refuse_second(run: JobRun, rerun: JobRun | None = None) -> None:
    """Raise `RerunRefused` if another run repeats the failed tasks: its record has what is left."""
    reruns = JobRun.objects.filter(rerun_of=run.pk)
    other = (reruns if rerun is None else reruns.exclude(pk=rerun.pk)).newest_first().only("status").first()
    if other is not None and other.is_finished:
        _refuse(run, "repeated", f"run {other.pk} has repeated its failed tasks", "Rerun that run.")
    if other is not None:
        _refuse(run, "repeated", f"run {other.pk} repeats its failed tasks", "Wait until that run ends.")


def _shares(run: JobRun) -> Shares:
    """Return the shares of the run's tasks."""
    if run.shares is None:
        return Shares(run.pk, run.task_count, tuple(range(run.task_count)))
    shares = Shares.decode(run.shares)
    if not JobRun.objects.filter(pk=shares.origin).exists():
        _refuse(run, "deleted", "the first run of its items was deleted", "Start a new run.")
    return shares


def _elements(run: JobRun, indexes: Sequence[int]) -> Sequence[tuple[str, ...]]:
    if run.elements is None:
        return ()
    rows = dict(TaskRun.objects.filter(run=run.pk).values_list("index", "argv"))
    found = [rows.get(index) for index in indexes]
    if None in found:
        hint = "Call delay_many() of the command instead."
        _refuse(run, "deleted", "the arguments of its elements were deleted", hint)
    for arguments in found:
        _refuse_redacted(run, arguments or ())
    return [tuple(arguments) for arguments in found if arguments is not None]


def _refuse_redacted(run: JobRun, arguments: Sequence[str]) -> None:
    if any(map(is_redacted, arguments)):
        message = f"{run}: cannot be rerun: the values of its secret options are not recorded."
        hint = "Start the job again, with SecretRef('name') as their values."
        raise RerunRefused(message, hint=hint, reason=SECRETS)


def _refuse(run: JobRun, reason: str, why: str, hint: str) -> NoReturn:
    raise RerunRefused(f"{run}: its failed tasks cannot be rerun: {why}.", hint=hint, reason=reason)
