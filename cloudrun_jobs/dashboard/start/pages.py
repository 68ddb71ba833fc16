"""Start a run of a job with the options of a form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

from django.shortcuts import redirect
from django.utils.log import log_response
from django.utils.translation import gettext as _

from cloudrun_jobs import backends, enqueue
from cloudrun_jobs.dashboard.errors import ANY_ERROR, describe
from cloudrun_jobs.dashboard.site import Level, Link, Page, Site
from cloudrun_jobs.dashboard.start.form import StartForm
from cloudrun_jobs.dashboard.text import plain
from cloudrun_jobs.exceptions import (
    CloudRunJobsError,
    IdempotencyKeyReused,
    InvalidArguments,
    InvalidJob,
    InvalidSettings,
)
from cloudrun_jobs.http import actions
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.operations import Operation
from cloudrun_jobs.registry import find_job

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

    from cloudrun_jobs.command import CloudRunJobs
    from cloudrun_jobs.http.authentication import Caller

LEVELS = {Status.SUCCEEDED: Level.SUCCESS, Status.SKIPPED: Level.WARNING}
SUBCOMMAND = "subcommand"  # In the query, once for each level.


def start(site: Site, request: HttpRequest, caller: Caller, command: str) -> HttpResponse:
    """Show the form of the job's options; start a run when it is posted."""
    page = StartPage(site, request, caller, command)
    try:
        form = _form(request, command)
    except NoForm as reason:
        response = page.refuse(reason)
        if reason.__cause__:
            page.log(reason.__cause__, response)
        return response
    if request.method == "POST" and not form.missing:
        return page.post(form)
    return page.show(form)


class NoForm(Exception):
    """A job has no form; the message says why, in the language of the page."""

    def __init__(
        self, message: str, details: object = "", status: HTTPStatus = HTTPStatus.SERVICE_UNAVAILABLE
    ) -> None:
        super().__init__(message)
        self.details, self.status = str(details), status


def _form(request: HttpRequest, command: str) -> StartForm:
    """Return the form of the job. Raises `NoForm`."""
    data = request.POST if request.method == "POST" else None
    try:
        return StartForm(_job(command), request.GET.getlist(SUBCOMMAND), data)
    except NoForm:
        raise
    except InvalidJob as error:
        raise NoForm(_("The declaration of this job is invalid. Run “manage.py check”."), error) from None
    except InvalidSettings as error:
        raise NoForm(_("The settings are invalid. Run “manage.py check”."), error) from None
    except InvalidArguments:
        message = _("The job has no such subcommand. It may have been removed since the page was shown.")
        raise NoForm(message, status=HTTPStatus.NOT_FOUND) from None
    # Importing a command, creating it and building its parser may raise anything, or exit.
    except (Exception, SystemExit) as error:
        message = _("The options of this job cannot be read, because its command raised an error.")
        raise NoForm(message, f"{type(error).__name__}: {error}") from error


def _job(command: str) -> CloudRunJobs:
    job = find_job(command)
    if job is None:
        message = _("There is no such job. It may have been removed since the page was shown.")
        raise NoForm(message, status=HTTPStatus.NOT_FOUND)
    return job


@dataclass(frozen=True, slots=True)
class StartPage:
    """The page with the form of one job, and what becomes of a form that is posted."""

    site: Site
    request: HttpRequest
    caller: Caller
    command: str

    def post(self, form: StartForm) -> HttpResponse:
        """Start a run with the values of the form, and show it; or show the form with its errors."""
        key = actions.form_key(self.request)
        if key is None:
            form.add_error(None, _("The form was incomplete. Send it again."))
        if key is None or not form.is_valid():
            return self.show(form, key=key)
        request = RunRequest(form, actions.own_key(self.caller, key))
        try:
            run, is_new = actions.start(self.caller, request)
        except ANY_ERROR as error:
            return self._failed(form, request, error, key)
        return self._started(run, is_new=is_new)

    def show(self, form: StartForm, *, key: UUID | None = None) -> HttpResponse:
        """Return the page with the form; `key` identifies its request, so that a second one starts nothing."""
        spec = form.job.spec
        return self._render(
            form=form,
            key=key or uuid4(),
            subcommands=list(self._links(form)),
            environment=spec.environment,
            runs_here=backends.for_job(spec).runs_in_process,
            help=form.job.help,
        )

    def refuse(self, reason: NoForm) -> HttpResponse:
        """Return the page that says why there is no form."""
        return self._render(reason.status, problem=str(reason), details=reason.details)

    def log(self, error: BaseException, response: HttpResponse) -> None:
        """Log an exception of the job, which the response describes."""
        log_response(
            "%s: %s",
            error,
            self.request.path,
            response=response,
            request=self.request,
            level="error",
            exception=error,
        )

    def _links(self, form: StartForm) -> Iterator[dict[str, str]]:
        url = self.site.url("start", self.command)
        for each in form.next_subcommands:
            query = urlencode([(SUBCOMMAND, name) for name in each.names])
            yield {"url": f"{url}?{query}", "name": each.names[-1], "help": each.help}

    def _render(self, status: int = HTTPStatus.OK, **context: Any) -> HttpResponse:
        back = self.site.url("job", self.command)
        page = Page(
            template="start.html",
            title=_("Run %(command)s") % {"command": plain(self.command)},
            context={"command": self.command, "back": back, **context},
            trail=[Link(_("Jobs"), self.site.url("jobs")), Link(plain(self.command), back)],
            status=status,
        )
        return self.site.render(self.request, page)

    def _started(self, run: JobRun, *, is_new: bool) -> HttpResponse:
        if not is_new:
            message = _("This form had already started this run. No other run was started.")
            return self._leave(Level.WARNING, message, run)
        if not run.is_finished:
            return self._leave(Level.SUCCESS, _("The run has been requested."), run)
        # It ran in this process.
        level = LEVELS.get(Status(run.status), Level.ERROR)
        message = _("The run has ended with the status “%(status)s”.")
        return self._leave(level, message % {"status": run.get_status_display()}, run)

    def _failed(self, form: StartForm, request: RunRequest, error: BaseException, key: UUID) -> HttpResponse:
        """Show the run that could not be sent, or why no run was started."""
        response = self._explain_failure(form, request, error, key)
        if not isinstance(error, CloudRunJobsError):
            self.log(error, response)
        return response

    def _explain_failure(
        self, form: StartForm, request: RunRequest, error: BaseException, key: UUID
    ) -> HttpResponse:
        if run := JobRun.objects.filter(pk=request.run_id).first():
            return self._leave(Level.ERROR, describe(error), run)
        if isinstance(error, IdempotencyKeyReused):
            # A new key is another run: the person decides whether to start it.
            form.add_error(None, describe(error))
            return self.show(form)
        if isinstance(error, InvalidArguments):
            form.report(error)
        else:
            form.add_error(None, describe(error))
        return self.show(form, key=key)

    def _leave(self, level: Level, message: str, run: JobRun) -> HttpResponse:
        """Show the run with a notice."""
        self.site.notify(self.request, level, message)
        return redirect(self.site.url("run", run.pk))


class RunRequest:
    """Requests the run of a form, for `actions.start()`."""

    def __init__(self, form: StartForm, key: str) -> None:
        self._form, self._key = form, key
        self.run_id = str(uuid4())

    def __call__(self, *, run_id: str, **given: Any) -> tuple[Operation, JobRun, bool]:
        self.run_id = run_id
        args, options = self._form.call()
        job, parser = self._form.job, self._form.parser
        return enqueue.request_run(job, args, options, key=self._key, run_id=run_id, parser=parser, **given)
