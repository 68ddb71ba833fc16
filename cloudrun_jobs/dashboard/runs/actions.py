"""Cancel and rerun runs."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import UUID

from django.shortcuts import redirect
from django.utils.log import log_response
from django.utils.translation import gettext as _

from cloudrun_jobs.dashboard.errors import describe
from cloudrun_jobs.dashboard.runs.excerpts import is_command_line
from cloudrun_jobs.dashboard.site import Level, Site
from cloudrun_jobs.dashboard.text import plain
from cloudrun_jobs.exceptions import CloudRunJobsError
from cloudrun_jobs.http import actions
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.registry import find_job

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponseBase

    from cloudrun_jobs.command import CloudRunJobs
    from cloudrun_jobs.http.authentication import Caller


def cancel(site: Site, request: HttpRequest, caller: Caller, run_id: UUID) -> HttpResponseBase:
    """Cancel the run, unless it has ended."""
    try:
        run = JobRun.objects.get(pk=run_id)
        is_changed = not run.is_finished and actions.cancel(caller, run)
    except JobRun.DoesNotExist:
        return _deleted(site, request)
    except CloudRunJobsError as error:
        return _failed(site, request, run_id, error, query="?again=1")
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
    failed_only, key = request.POST.get("failed_only") == "1", _key(request, caller)
    try:
        run = JobRun.objects.get(pk=run_id)
        if (job := _job_of(run)) is None or not is_command_line(run.argv) or key is None:
            site.notify(request, Level.ERROR, _impossible(run, job))
            return redirect(site.url("run", run_id))
        started = actions.rerun(caller, run, job, failed_only=failed_only, key=key)
    except JobRun.DoesNotExist:
        return _deleted(site, request)
    except CloudRunJobsError as error:
        return _failed(site, request, run_id, error)
    site.notify(request, Level.SUCCESS, _("The run is started. This is its page."))
    return redirect(site.url("run", started.pk))


def _key(request: HttpRequest, caller: Caller) -> str | None:
    """Return the key of the form, with which a second submission returns the run of the first."""
    try:
        return actions.own_key(caller, str(UUID(request.POST.get("key", ""))))
    except ValueError:
        return None


def _job_of(run: JobRun) -> CloudRunJobs | None:
    with suppress(Exception, SystemExit):  # The command cannot be imported.
        return find_job(run.command)
    return None


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


def _failed(
    site: Site, request: HttpRequest, run_id: UUID, error: CloudRunJobsError, query: str = ""
) -> HttpResponseBase:
    site.notify(request, Level.ERROR, describe(error))
    response = redirect(f"{site.url('run', run_id)}{query}")
    log_response("%s: %s", error, request.path, response=response, request=request, level="warning")
    return response
