"""Audit what callers do to runs and jobs: log every action, and add those of users to the admin history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.apps import apps

from cloudrun_jobs.http.authentication import Caller
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.models.jobs import Job
from cloudrun_jobs.signals import job_action, run_action

# In English: the history keeps them, for readers of every language.
MESSAGES: Mapping[str, str] = {
    "start": "Started",
    "cancel": "Cancelled",
    "request_cancel": "Cancellation requested",
    "rerun": "Rerun",
}
JOB_MESSAGES: Mapping[str, str] = {
    "pause": "Paused {}.",
    "resume": "Resumed {}.",
    "release_lock": "Released the lock {}.",
}


def audit(caller: Caller, action: str, run: JobRun, *, over_http: bool = False) -> None:
    """Record the caller's action on a run."""
    run_action.send_robust(JobRun, run=run, action=action, caller=caller.name)
    is_cancellation = action == "cancel"
    name = "request_cancel" if is_cancellation and not run.is_finished else action
    message = f"{MESSAGES[name]}{' over HTTP' if over_http else ''}."
    _add_to_history(caller, run, message, is_addition=not is_cancellation)


def audit_job(caller: Caller, action: str, command: str, subject: str) -> None:
    """Record the caller's action on the schedules or a lock of a job. The job may no longer be declared."""
    job_action.send_robust(JobRun, command=command, action=action, subject=subject, caller=caller.name)
    # The history of a job is found by its name: no row is a job.
    _add_to_history(caller, Job(pk=command, command=command), JOB_MESSAGES[action].format(subject))


def _add_to_history(caller: Caller, row: Any, message: str, *, is_addition: bool = False) -> None:
    # An admin site of a project may admit users without an account.
    if getattr(caller.user, "pk", None) is None or not apps.is_installed("django.contrib.admin"):
        return
    from django.contrib.admin.models import ADDITION, CHANGE, LogEntry

    flag = ADDITION if is_addition else CHANGE
    LogEntry.objects.log_actions(caller.user.pk, [row], flag, change_message=message, single_object=True)
