"""Explain why a run or a task has its status, in the language of the page."""

from __future__ import annotations

from collections.abc import Mapping

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

#: By `JobRun.reason`, or `TaskRun.reason`.
REASONS: Mapping[str, Promise] = {
    "error": _("The job raised an exception."),
    "exit_code": _("The job exited with a non-zero status."),
    "timeout": _("The attempt exceeded its timeout."),
    "interrupted": _("The machine or the process was shut down before the job ended."),
    "out_of_memory": _("The container exceeded its memory limit and was killed."),
    "failed": _("Cloud Run reports a failure that the job did not record."),
    "lock": _("A lock could not be acquired."),
    "lock_lost": _("A lock was lost while the job was running."),
    "items": _("Every task succeeded, but some items failed or are not done."),
    "reduce": _("Every task ended, but combining their results failed."),
    "task": _("Another task of the run did not succeed."),
    "not_sent": _("The request was rejected, or was never sent."),
    "no_response": _("Cloud Run did not respond to the request. An execution that started anyway does no work."),
    "cancelled": _("It was cancelled on request."),
    "keyboard": _("It was cancelled with Ctrl-C."),
    "lock_held": _("It did no work: another execution holds the lock."),
    "same_tick": _("It did no work: this scheduled time already has a run."),
    "not_recorded": _("Cloud Run reports success, but the job did not record its result."),
    "process_died": _("The process ended without recording an outcome."),
    "unknown_command": _("No worker has the command: the workers run an older deployment."),
    "never_started": _("It did not start within a day of its time."),
    "deleted": _("The execution was deleted in Cloud Run."),
}


def explain(reason: str) -> Promise | str:
    """Return the reason as a sentence; as it is recorded if it is not one of this package."""
    return REASONS.get(reason, reason)
