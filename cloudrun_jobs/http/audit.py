"""Audit what callers do to runs and jobs: log every action, and add those of users to the admin history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.apps import apps
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from cloudrun_jobs.http.authentication import Caller
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.models.jobs import Job
from cloudrun_jobs.signals import http_action, job_action

Text = str | Promise
MESSAGES: Mapping[str, Text] = {
    "start": _("Started."),
    "cancel": _("Cancelled."),
    "request_cancel": _("Cancellation requested."),
    "rerun": _("Rerun."),
}
OVER_HTTP: Mapping[str, Text] = {
    "start": _("Started over HTTP."),
    "cancel": _("Cancelled over HTTP."),
    "request_cancel": _("Cancellation requested over HTTP."),
    "rerun": _("Rerun over HTTP."),
}


def audit(caller: Caller, action: str, run: JobRun, *, over_http: bool = False) -> None:
    """Record the caller's action on a run."""
    http_action.send_robust(JobRun, run=run, action=action, caller=caller.name)
    is_cancellation = action == "cancel"
    name = "request_cancel" if is_cancellation and not run.is_finished else action
    message = (OVER_HTTP if over_http else MESSAGES)[name]
    _add_to_history(caller, run, message, is_addition=not is_cancellation)


JOB_MESSAGES: Mapping[str, Text] = {
    "pause": _("Paused %(subject)s."),
    "resume": _("Resumed %(subject)s."),
    "release_lock": _("Released the lock %(subject)s."),
}


def audit_job(caller: Caller, action: str, command: str, subject: str) -> None:
    """Record the caller's action on the schedules or a lock of a job. The job may no longer be declared."""
    job_action.send_robust(JobRun, command=command, action=action, subject=subject, caller=caller.name)
    # The history of a job is found by its name: no row is a job.
    _add_to_history(caller, Job(pk=command, command=command), JOB_MESSAGES[action] % {"subject": subject})


def _add_to_history(caller: Caller, row: Any, message: Text, *, is_addition: bool = False) -> None:
    # An admin site of a project may admit users without an account.
    if getattr(caller.user, "pk", None) is None or not apps.is_installed("django.contrib.admin"):
        return
    from django.contrib.admin.models import ADDITION, CHANGE, LogEntry

    flag = ADDITION if is_addition else CHANGE
    LogEntry.objects.log_actions(caller.user.pk, [row], flag, change_message=str(message), single_object=True)
