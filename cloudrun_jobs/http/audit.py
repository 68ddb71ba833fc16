"""Audit starts, cancellations and reruns: log every action, and add those of users to the admin history."""

from __future__ import annotations

from django.apps import apps

from cloudrun_jobs.http.authentication import Caller
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.signals import http_action

MESSAGES = {"start": "Started over HTTP.", "cancel": "Cancelled over HTTP.", "rerun": "Rerun over HTTP."}


def audit(caller: Caller, action: str, run: JobRun) -> None:
    """Record the caller's action on a run."""
    http_action.send_robust(JobRun, run=run, action=action, caller=caller.name)
    if caller.user is None or not apps.is_installed("django.contrib.admin"):
        return
    from django.contrib.admin.models import ADDITION, CHANGE, LogEntry

    flag = CHANGE if action == "cancel" else ADDITION
    LogEntry.objects.log_actions(caller.user.pk, [run], flag, change_message=MESSAGES[action], single_object=True)
