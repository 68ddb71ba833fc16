"""Cancel and rerun the runs that are selected in the admin's list."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from enum import Enum, auto
from uuid import UUID

from django.utils.translation import ngettext

from cloudrun_jobs.dashboard.errors import ANY_ERROR, describe
from cloudrun_jobs.dashboard.site import Level
from cloudrun_jobs.exceptions import CloudRunJobsError
from cloudrun_jobs.http import actions
from cloudrun_jobs.http.authentication import Caller
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.registry import find_job_or_none
from cloudrun_jobs.runs.reruns import is_command_line

logger = logging.getLogger("django.request")

MAX_SELECTED = 100  # runs: each takes a request to Google


class Outcome(Enum):
    """What became of a selected run."""

    CANCELLED = auto()
    REQUESTED = auto()  # It ends when its tasks detect the cancellation.
    ENDED = auto()
    STARTED = auto()
    REPEATED = auto()  # An earlier submission of the form has started it.
    GONE = auto()
    NOT_RECORDED = auto()
    DELETED = auto()
    NOT_SENT = auto()  # Its tasks detect the cancellation, if they are running.
    FAILED = auto()


def cancel_runs(caller: Caller, runs: Iterable[JobRun]) -> Iterator[tuple[Level, str]]:
    """Cancel the runs; yield a message for each outcome."""
    return _messages(runs, lambda run: _cancel(caller, run), _failed_cancellation)


def rerun_runs(caller: Caller, runs: Iterable[JobRun], key: UUID) -> Iterator[tuple[Level, str]]:
    """Start each run again, once for each `key`; yield a message for each outcome."""
    return _messages(runs, lambda run: _rerun(caller, run, actions.own_key(caller, f"{key} {run.pk}")))


def _messages(
    runs: Iterable[JobRun],
    act: Callable[[JobRun], Outcome],
    failed: Callable[[JobRun], Outcome] = lambda run: Outcome.FAILED,
) -> Iterator[tuple[Level, str]]:
    counts, reasons = Counter[Outcome](), dict[Outcome, str]()
    for run in runs:
        try:
            outcome = act(run)
        except JobRun.DoesNotExist:
            outcome = Outcome.DELETED
        except ANY_ERROR as error:
            outcome, reason = failed(run), describe(error)
            reasons.setdefault(outcome, reason)
            if not isinstance(error, CloudRunJobsError):
                logger.exception("%s: the action failed", run)
        counts[outcome] += 1
    for outcome in Outcome:
        if count := counts[outcome]:
            yield _level(outcome), _text(outcome, count) % {"count": count}
            if outcome in reasons:
                yield Level.ERROR, reasons[outcome]


def _cancel(caller: Caller, run: JobRun) -> Outcome:
    if run.is_finished or not actions.cancel(caller, run):
        return Outcome.ENDED
    return Outcome.CANCELLED if run.status == Status.CANCELLED else Outcome.REQUESTED


def _failed_cancellation(run: JobRun) -> Outcome:
    return Outcome.FAILED if run.cancel_requested_at is None else Outcome.NOT_SENT


def _rerun(caller: Caller, run: JobRun, key: str) -> Outcome:
    if not is_command_line(run.argv):
        return Outcome.NOT_RECORDED
    if (job := find_job_or_none(run.command)) is None:
        return Outcome.GONE
    _, is_new = actions.rerun(caller, run, job, key=key)
    return Outcome.STARTED if is_new else Outcome.REPEATED


def _level(outcome: Outcome) -> Level:
    if outcome in {Outcome.CANCELLED, Outcome.REQUESTED, Outcome.STARTED}:
        return Level.SUCCESS
    return Level.ERROR if outcome in {Outcome.NOT_SENT, Outcome.FAILED} else Level.WARNING


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
        Outcome.REPEATED: ngettext(
            "This form had already started %(count)d run.",
            "This form had already started %(count)d runs.",
            count,
        ),
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
        Outcome.DELETED: ngettext(
            "The record of %(count)d run has been deleted.",
            "The records of %(count)d runs have been deleted.",
            count,
        ),
        Outcome.NOT_SENT: ngettext(
            "%(count)d cancellation is recorded, but was not sent, for this reason:",
            "%(count)d cancellations are recorded, but were not sent. The reason of the first:",
            count,
        ),
        Outcome.FAILED: ngettext(
            "%(count)d run was left as it is, for this reason:",
            "%(count)d runs were left as they are. The reason of the first:",
            count,
        ),
    }
    return texts[outcome]
