"""Audit starts, cancellations and reruns: log every action, and add those of users to the admin history."""

from __future__ import annotations

from django.apps import apps
from django.utils.translation import gettext_lazy as _

from cloudrun_jobs.http.authentication import Caller
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.signals import http_action

MESSAGES = {"start": _("Started."), "cancel": _("Cancelled."), "rerun": _("Rerun.")}
OVER_HTTP = {
    "start": _("Started over HTTP."),
    "cancel": _("Cancelled over HTTP."),
    "rerun": _("Rerun over HTTP."),
}


def audit(caller: Caller, action: str, run: JobRun, *, over_http: bool = False) -> None:
    """Record the caller's action on a run."""
    http_action.send_robust(JobRun, run=run, action=action, caller=caller.name)
    if caller.user is None or not apps.is_installed("django.contrib.admin"):
        return
    from django.contrib.admin.models import ADDITION, CHANGE, LogEntry

    flag, message = CHANGE if action == "cancel" else ADDITION, str((OVER_HTTP if over_http else MESSAGES)[action])
    LogEntry.objects.log_actions(caller.user.pk, [run], flag, change_message=message, single_object=True)
