"""Report errors in the language of the page: of an action in a notice, of a page by another one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

from django.db import Error
from django.utils.functional import Promise
from django.utils.log import log_response
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from cloudrun_jobs.dashboard.site import Page, Site
from cloudrun_jobs.dashboard.text import plain
from cloudrun_jobs.exceptions import (
    CloudRunJobsError,
    IdempotencyKeyReused,
    InvalidArguments,
    InvalidJob,
    InvalidSettings,
    JobNotDeployed,
    QuotaExhausted,
    RecordTablesMissing,
    RecordUnavailable,
    RerunRefused,
    ServiceError,
    ServiceUnavailable,
)
from cloudrun_jobs.process.database_errors import is_outdated_schema
from cloudrun_jobs.runs.database import migrate_hint

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

Text = str | Promise
#: What `fault_of()` has a page for.
FAULTS = (Error, CloudRunJobsError)

#: What the code of a job may raise while it is imported, or reads its arguments.
ANY_ERROR = (Exception, SystemExit)

#: By `RerunRefused.reason`.
REFUSALS: Mapping[str, Promise] = {
    "secrets": gettext_lazy(
        "Nothing was started: the values of the run's secret options are not recorded. Start the job again."
    ),
    "unfinished": gettext_lazy("Nothing was started: the run has not ended, so what failed is not known yet."),
    "not_started": gettext_lazy("Nothing was started: no task of the run has started. Rerun the whole run."),
    "nothing_failed": gettext_lazy("Nothing was started: nothing is left to repeat."),
    "repeated": gettext_lazy("Nothing was started: another run already repeats the failed tasks."),
    "deleted": gettext_lazy("Nothing was started: records that are needed to repeat what failed were deleted."),
}


def describe(error: BaseException) -> str:
    """Return what happened, and what to do. The text of the error itself is English."""
    if not isinstance(error, CloudRunJobsError):
        return _describe_unexpected(error)
    if isinstance(error, RerunRefused) and error.reason in REFUSALS:
        return str(REFUSALS[error.reason])
    kind = {"kind": type(error).__name__, "error": plain(error)}
    if isinstance(error, JobNotDeployed):
        return _("Cloud Run has no such job. Run “manage.py sync_cloudrun_jobs”, then try again.")
    if isinstance(error, ServiceUnavailable | QuotaExhausted):
        return _("The service did not carry out the request (%(kind)s). Try again later. %(error)s") % kind
    if isinstance(error, ServiceError):
        return _("The service rejected the request (%(kind)s). %(error)s") % kind
    if isinstance(error, IdempotencyKeyReused):
        return _("This form has already started a run, with other values. To start another run, send it again.")
    if isinstance(error, InvalidArguments):
        return _("Nothing was started: the command rejects the arguments. %(error)s") % kind
    return _("The request failed (%(kind)s). %(error)s") % kind


def _describe_unexpected(error: BaseException) -> str:
    """Describe an error of the code of a job or of the database."""
    kind = {"kind": type(error).__name__, "error": plain(error)}
    if isinstance(error, Error):  # Its text may name hosts and users.
        return _("The request failed (%(kind)s). The log has the reason.") % kind
    return _("The request failed (%(kind)s). %(error)s") % kind


@dataclass(frozen=True, slots=True)
class Problem:
    """A status, and the page for it."""

    status: HTTPStatus
    title: Text
    message: Text
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self, site: Site, request: HttpRequest, error: Exception | None = None) -> HttpResponse:
        """Return the page; log the error of a fault that is not the request's."""
        page = Page(
            template="problem.html",
            title=str(self.title),
            context={"message": self.message},
            status=self.status,
        )
        response = site.render(request, page)
        for name, value in self.headers.items():
            response[name] = value
        if self.status >= HTTPStatus.INTERNAL_SERVER_ERROR and error is not None:
            log_response("%s: %s", error, request.path, response=response, request=request, exception=error)
        return response


METHOD_NOT_ALLOWED = Problem(
    HTTPStatus.METHOD_NOT_ALLOWED,
    gettext_lazy("Method not allowed"),
    gettext_lazy("This address does not accept this kind of request. Use the buttons on the pages."),
)
UNAVAILABLE = Problem(
    HTTPStatus.SERVICE_UNAVAILABLE,
    gettext_lazy("Database unavailable"),
    gettext_lazy("The database does not answer, or rejects the request. Try again in a moment."),
    {"Retry-After": "30"},
)
INVALID_SETTINGS = Problem(
    HTTPStatus.INTERNAL_SERVER_ERROR,
    gettext_lazy("Invalid settings"),
    gettext_lazy("The settings of cloudrun_jobs are invalid. The log has the reason; so has “manage.py check”."),
)
INVALID_JOB = Problem(
    HTTPStatus.INTERNAL_SERVER_ERROR,
    gettext_lazy("Invalid job"),
    gettext_lazy("The declaration of the job is invalid. The log has the reason; so has “manage.py check”."),
)


def fault_of(error: Exception) -> Problem:
    """Return the problem of one of `FAULTS`. Its page omits the text of the database, which names hosts."""
    match error:
        case Error() | RecordUnavailable() | RecordTablesMissing():
            return _database_fault(error)
        case InvalidSettings():
            return INVALID_SETTINGS
        case InvalidJob():
            return INVALID_JOB
        case CloudRunJobsError():
            return Problem(HTTPStatus.SERVICE_UNAVAILABLE, _("This page is not available"), describe(error))
    raise error


def _database_fault(error: Exception) -> Problem:
    cause = error if isinstance(error, Error) else error.__cause__
    if isinstance(cause, Error) and is_outdated_schema(cause):
        message = _("The database has no tables for the run records, or those of another version. %(hint)s")
        return Problem(UNAVAILABLE.status, UNAVAILABLE.title, message % {"hint": migrate_hint()})
    return UNAVAILABLE
