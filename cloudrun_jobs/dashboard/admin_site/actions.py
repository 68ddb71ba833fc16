"""Cancel and rerun the runs that are selected in the admin's list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from enum import Enum, auto

from django.utils.translation import ngettext

from cloudrun_jobs.dashboard.errors import describe
from cloudrun_jobs.dashboard.site import Level
from cloudrun_jobs.exceptions import CloudRunJobsError
from cloudrun_jobs.http import actions
from cloudrun_jobs.http.authentication import Caller
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.registry import find_job

MAX_SELECTED = 100  # runs: each takes a request to Google


class Outcome(Enum):
    """What became of a selected run."""

    CANCELLED = auto()
    REQUESTED = auto()  # It ends when its tasks detect the cancellation.
    ENDED = auto()
    STARTED = auto()
    GONE = auto()
    NOT_RECORDED = auto()
    FAILED = auto()


def cancel_runs(caller: Caller, runs: Iterable[JobRun]) -> Iterator[tuple[Level, str]]:
    """Cancel the runs; yield a message for each outcome."""
    return _messages(runs, lambda run: _cancel(caller, run))


def rerun_runs(caller: Caller, runs: Iterable[JobRun], key: str) -> Iterator[tuple[Level, str]]:
    """Start each run again, once for each `key`; yield a message for each outcome."""
    return _messages(runs, lambda run: _rerun(caller, run, actions.own_key(caller, f"{key} {run.pk}")))


def _messages(runs: Iterable[JobRun], act: Callable[[JobRun], Outcome]) -> Iterator[tuple[Level, str]]:
    counts, reason = Counter[Outcome](), ""
    for run in runs:
        try:
            outcome = act(run)
        except CloudRunJobsError as error:
            outcome, reason = Outcome.FAILED, reason or describe(error)
        counts[outcome] += 1
    for outcome in Outcome:
        if count := counts[outcome]:
            yield _level(outcome), _text(outcome, count) % {"count": count}
    if reason:
        yield Level.ERROR, reason


def _cancel(caller: Caller, run: JobRun) -> Outcome:
    if run.is_finished or not actions.cancel(caller, run):
        return Outcome.ENDED
    return Outcome.CANCELLED if run.status == Status.CANCELLED else Outcome.REQUESTED


def _rerun(caller: Caller, run: JobRun, key: str) -> Outcome:
    if run.argv is None:
        return Outcome.NOT_RECORDED
    job = None
    with suppress(Exception, SystemExit):  # The command cannot be imported.
        job = find_job(run.command)
    if job is None:
        return Outcome.GONE
    actions.rerun(caller, run, job, key=key)
    return Outcome.STARTED


def _level(outcome: Outcome) -> Level:
    if outcome in {Outcome.CANCELLED, Outcome.REQUESTED, Outcome.STARTED}:
        return Level.SUCCESS
    return Level.ERROR if outcome == Outcome.FAILED else Level.WARNING


def _text(outcome: Outcome, count: int) -> str:
    texts = {
        Outcome.CANCELLED: ngettext("%(count)d run was cancelled.", "%(count)d runs were cancelled.", count),
        Outcome.REQUESTED: ngettext(
            "%(count)d run ends when its tasks detect the cancellation.",
            "%(count)d runs end when their tasks detect the cancellation.",
            count,
        ),
        Outcome.ENDED: ngettext("%(count)d run had already ended.", "%(count)d runs had already ended.", count),
        Outcome.STARTED: ngettext("%(count)d run was started.", "%(count)d runs were started.", count),
        Outcome.GONE: ngettext(
            "%(count)d run was not started again: its job no longer exists.",
            "%(count)d runs were not started again: their jobs no longer exist.",
            count,
        ),
        Outcome.NOT_RECORDED: ngettext(
            "%(count)d run was not started again: its arguments were not recorded.",
            "%(count)d runs were not started again: their arguments were not recorded.",
            count,
        ),
        Outcome.FAILED: ngettext(
            "%(count)d run was left as it is, for this reason:",
            "%(count)d runs were left as they are. The reason of the first:",
            count,
        ),
    }
    return texts[outcome]
