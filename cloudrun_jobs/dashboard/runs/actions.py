"""Cancel and rerun runs."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from django.shortcuts import redirect
from django.utils.log import log_response
from django.utils.translation import gettext as _

from cloudrun_jobs.dashboard.errors import ANY_ERROR, describe
from cloudrun_jobs.dashboard.site import Level, Site
from cloudrun_jobs.dashboard.text import plain
from cloudrun_jobs.exceptions import CloudRunJobsError
from cloudrun_jobs.http import actions
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.models.querysets import LONG_FIELDS
from cloudrun_jobs.registry import find_job_or_none
from cloudrun_jobs.runs.reruns import is_command_line

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponseBase

    from cloudrun_jobs.command import CloudRunJobs
    from cloudrun_jobs.http.authentication import Caller


def cancel(site: Site, request: HttpRequest, caller: Caller, run_id: UUID) -> HttpResponseBase:
    """Cancel the run, unless it has ended."""
    if (run := _find(run_id)) is None:
        return _deleted(site, request)
    try:
        is_changed = not run.is_finished and actions.cancel(caller, run)
    except JobRun.DoesNotExist:
        return _deleted(site, request)
    except ANY_ERROR as error:
        return _failed(site, request, run, _not_sent(run, error), error)
    site.notify(request, *_cancelled(run, is_changed=is_changed))
    return redirect(site.url("run", run_id))


def _cancelled(run: JobRun, *, is_changed: bool) -> tuple[Level, str]:
    """Return what is so now."""
    if is_changed and not run.is_finished:
        return Level.SUCCESS, _("The cancellation is requested. The run ends when its tasks detect it.")
    if is_changed:
        return Level.SUCCESS, _("The run is cancelled.")
    if run.status == Status.CANCELLED:
        return Level.WARNING, _("The run had already been cancelled.")
    message = _("The run was not cancelled: it has ended with the status “%(status)s”.")
    return Level.WARNING, message % {"status": run.get_status_display()}


def rerun(site: Site, request: HttpRequest, caller: Caller, run_id: UUID) -> HttpResponseBase:
    """Start a new run with the arguments of this one, or of its failed tasks."""
    failed_only, key = request.POST.get("failed_only") == "1", actions.form_key(request)
    if (run := _find(run_id)) is None:
        return _deleted(site, request)
    if (job := find_job_or_none(run.command)) is None or not is_command_line(run.argv) or key is None:
        site.notify(request, Level.ERROR, _impossible(run, job))
        return redirect(site.url("run", run_id))
    try:
        started, is_new = actions.rerun(
            caller, run, job, failed_only=failed_only, key=actions.own_key(caller, key)
        )
    except ANY_ERROR as error:
        return _failed(site, request, run, describe(error), error)
    site.notify(request, *_started(is_new=is_new))
    return redirect(site.url("run", started.pk))


def _started(*, is_new: bool) -> tuple[Level, str]:
    if is_new:
        return Level.SUCCESS, _("The run is started. This is its page.")
    return Level.WARNING, _("This form had already started this run. No other run was started.")


def _impossible(run: JobRun, job: CloudRunJobs | None) -> str:
    if job is None:
        message = _("Nothing was started: the command “%(command)s” no longer exists, or is no longer a job.")
        return message % {"command": plain(run.command)}
    if not is_command_line(run.argv):
        return _("Nothing was started: the arguments of the run were not recorded.")
    return _("Nothing was started: the form was incomplete. Send it from this page.")


def _deleted(site: Site, request: HttpRequest) -> HttpResponseBase:
    site.notify(request, Level.WARNING, _("Nothing was done: the record of the run has been deleted."))
    return redirect(site.url("runs"))


def _find(run_id: UUID) -> JobRun | None:
    return JobRun.objects.defer(*LONG_FIELDS).filter(pk=run_id).first()


def _not_sent(run: JobRun, error: BaseException) -> str:
    """Return what is so now: tasks that are running detect a recorded cancellation."""
    if run.cancel_requested_at is None:
        return describe(error)
    return _("The cancellation is recorded, but was not sent. %(reason)s") % {"reason": describe(error)}


def _failed(site: Site, request: HttpRequest, run: JobRun, message: str, error: BaseException) -> HttpResponseBase:
    site.notify(request, Level.ERROR, message)
    # With the button again: the recorded request was not sent.
    again = "?again=1" if run.cancel_requested_at else ""
    response = redirect(f"{site.url('run', run.pk)}{again}")
    is_fault = not isinstance(error, CloudRunJobsError)  # Of the code of the job, or of the database.
    log_response(
        "%s: %s",
        error,
        request.path,
        response=response,
        request=request,
        level="error" if is_fault else "warning",
        exception=error if is_fault else None,
    )
    return response
