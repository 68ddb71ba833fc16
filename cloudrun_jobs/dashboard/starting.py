"""Start a run of a job with the options of a form."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

from django.shortcuts import redirect
from django.utils.translation import gettext

from cloudrun_jobs import enqueue
from cloudrun_jobs.dashboard.fields import readable
from cloudrun_jobs.dashboard.forms import StartForm, UnknownSubcommand
from cloudrun_jobs.dashboard.site import Level, Link, Page, Site
from cloudrun_jobs.exceptions import (
    CloudRunJobsError,
    IdempotencyKeyReused,
    InvalidArguments,
    InvalidJob,
    InvalidSettings,
    JobNotDeployed,
    ServiceError,
)
from cloudrun_jobs.http import actions
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.operations import Operation
from cloudrun_jobs.registry import find_job

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponseBase

    from cloudrun_jobs.http.authentication import Caller

logger = logging.getLogger(__name__)

SUBCOMMAND = "subcommand"  # In the query, once for each level.


class Unavailable(Exception):
    """The form of a job cannot be shown; the message says why, in the language of the page."""

    def __init__(self, message: str, details: str = "", status: HTTPStatus = HTTPStatus.OK) -> None:
        super().__init__(message)
        self.details, self.status = readable(details), status


def start(site: Site, request: HttpRequest, caller: Caller, command: str) -> HttpResponseBase:
    """Show the form of the job's options; start a run when it is posted."""
    page = StartPage(site, request, caller, command)
    try:
        form = _form(request, command)
    except Unavailable as problem:
        return page.show(status=problem.status, problem=str(problem), details=problem.details)
    if request.method == "POST" and not form.missing:
        return page.post(form)
    return page.show(form)


def _form(request: HttpRequest, command: str) -> StartForm:
    """Return the form of the job. Raises `Unavailable`."""
    data = request.POST if request.method == "POST" else None
    try:
        job = find_job(command)
        if job is None:
            text = gettext("There is no such job. It may have been removed since the page was shown.")
            raise Unavailable(text, status=HTTPStatus.NOT_FOUND)
        job.spec  # noqa: B018  (raises InvalidJob)
        return StartForm(job, request.GET.getlist(SUBCOMMAND), data)
    except (Unavailable, InvalidJob, InvalidSettings) as error:
        raise _unavailable(error) from None
    except UnknownSubcommand:
        message = gettext("The job has no such subcommand. It may have been removed since the page was shown.")
        raise Unavailable(message, status=HTTPStatus.NOT_FOUND) from None
    # Importing a command, creating it and building its parser may raise anything, or exit.
    except (Exception, SystemExit) as error:
        logger.exception("The form of the job %s cannot be shown", command)
        message = gettext("The options of this job cannot be read, because its command raised an error.")
        raise Unavailable(message, f"{type(error).__name__}: {error}") from None


def _unavailable(error: Exception) -> Unavailable:
    if isinstance(error, InvalidJob):
        return Unavailable(gettext("The declaration of this job is invalid. Run `manage.py check`."), str(error))
    if isinstance(error, InvalidSettings):
        return Unavailable(gettext("The settings are invalid. Run `manage.py check`."), str(error))
    raise error


@dataclass(slots=True)
class StartPage:
    """The page with the form of one job, and what becomes of a form that is posted."""

    site: Site
    request: HttpRequest
    caller: Caller
    command: str

    def post(self, form: StartForm) -> HttpResponseBase:
        """Start a run with the values of the form, and show it; or show the form with its errors."""
        key = _key(self.request.POST.get("key", ""))
        if key is None:
            form.add_error(None, gettext("The form was incomplete, and no run was started. Start the job again."))
        if not form.is_valid() or key is None:
            return self.show(form, key=key)
        request = RunRequest(form, actions.own_key(self.caller, str(key)))
        try:
            run = actions.start(self.caller, request)
        except IdempotencyKeyReused:
            # Another form is not another run: the person decides whether to start it.
            form.add_error(None, gettext("This form has already started a run, with other values. To start another one, send the form again."))
            return self.show(form)
        except InvalidArguments as error:
            form.report(error)
            return self.show(form, key=key)
        except Exception as error:
            return self._failed(form, request, error)
        return self._started(run, is_new=request.is_new)

    def show(
        self, form: StartForm | None = None, *, key: UUID | None = None, status: int = 200, **context: Any
    ) -> HttpResponseBase:
        """Return the page; `key` identifies the request of the form, so that a second one starts nothing."""
        may_read = "read" in self.caller.scopes
        url = self.site.url("start", self.command)
        links = [
            {"url": f"{url}?{urlencode([(SUBCOMMAND, name) for name in each.names])}", "name": each.names[-1], "help": each.help}
            for each in (form.next_subcommands if form else ())
        ]
        context = {
            "command": self.command,
            "form": form,
            "key": key or uuid4(),
            "subcommands": links,
            "environment": form.job.spec.environment if form else "",
            "job_help": readable(str(form.job.help)) if form else "",
            "back": self.site.url("job", self.command) if may_read else "",
            **context,
        }
        title = gettext("Run %(command)s") % {"command": readable(self.command)}
        trail = [Link(gettext("Jobs"), self.site.url("jobs")), Link(self.command, context["back"])] if may_read else []
        return self.site.render(
            self.request, Page(template="start.html", title=title, context=context, trail=trail, status=status)
        )

    def _started(self, run: JobRun, *, is_new: bool) -> HttpResponseBase:
        """Show the run, with a notice."""
        level, message = Level.SUCCESS, gettext("The run has been requested.")
        if not is_new:
            level, message = Level.WARNING, gettext("This form had already started this run. No other run was started.")
        elif run.is_finished:  # It ran in this process.
            level = Level.SUCCESS if run.status == Status.SUCCEEDED else Level.ERROR
            message = gettext("The run has ended with the status “%(status)s”.") % {"status": run.get_status_display()}
        return self._leave(level, message, run)

    def _failed(self, form: StartForm, request: RunRequest, error: Exception) -> HttpResponseBase:
        """Show why no run was started, or the run that could not be sent."""
        message = _failure(error)
        if not isinstance(error, CloudRunJobsError):
            logger.error("A run of the job %s could not be started", self.command, exc_info=error)
        if (run := JobRun.objects.filter(pk=request.run_id).first()) is not None:
            return self._leave(Level.ERROR, message, run)
        form.add_error(None, message)
        return self.show(form)

    def _leave(self, level: Level, message: str, run: JobRun) -> HttpResponseBase:
        self.site.notify(self.request, level, message)
        may_read = "read" in self.caller.scopes
        return redirect(self.site.url("run", run.pk) if may_read else self.site.url("start", self.command))


class RunRequest:
    """Requests the run of a form, for `actions.start()`."""

    def __init__(self, form: StartForm, key: str) -> None:
        self._form, self._key = form, key
        self.run_id, self.is_new = "", True

    def __call__(self, *, run_id: str, **given: Any) -> tuple[Operation, JobRun, bool]:
        self.run_id = run_id
        args, options = self._form.call()
        result = enqueue.request_run(
            self._form.job, args, options, key=self._key, run_id=run_id, parser=self._form.parser, **given
        )
        self.is_new = result[2]
        return result


def _key(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _failure(error: Exception) -> str:
    """Return what has happened and what to do, in the language of the page."""
    if isinstance(error, JobNotDeployed):
        return gettext("Cloud Run has no such job. Run `manage.py sync_cloudrun_jobs`, and start the job again.")
    if isinstance(error, ServiceError):
        # The text of the error names resources. The record of the run and the log have it.
        message = gettext("The request to Cloud Run failed (%(error)s). The run and the log have the reason.")
        return message % {"error": type(error).__name__}
    message = gettext("The run could not be started: %(error)s")
    text = str(error) if isinstance(error, CloudRunJobsError) else f"{type(error).__name__}: {error}"
    return message % {"error": readable(text)}
