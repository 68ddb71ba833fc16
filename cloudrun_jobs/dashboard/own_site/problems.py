"""The pages of the dashboard for requests that fail or are refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING

from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.http import Http404
from django.utils.functional import Promise
from django.utils.log import log_response
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from cloudrun_jobs.dashboard.own_site.site import OwnSite
from cloudrun_jobs.dashboard.site import Page
from cloudrun_jobs.exceptions import InvalidJob, InvalidSettings
from cloudrun_jobs.http.authentication import PERMISSIONS
from cloudrun_jobs.http.endpoint import DATABASE_ERRORS, REJECTIONS
from cloudrun_jobs.http.errors import HttpError
from cloudrun_jobs.models import JobRun

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

#: What `problem_of()` has a page for.
ERRORS = (
    HttpError,
    Http404,
    PermissionDenied,
    JobRun.DoesNotExist,
    InvalidSettings,
    InvalidJob,
    *REJECTIONS,
    *DATABASE_ERRORS,
)
Text = str | Promise


@dataclass(frozen=True, slots=True)
class Problem:
    """A status, and the page for it."""

    status: HTTPStatus
    title: Text
    message: Text
    headers: Mapping[str, str] = field(default_factory=dict)
    needs_database: bool = True

    def with_headers(self, headers: Mapping[str, str]) -> Problem:
        return replace(self, headers={**self.headers, **headers})

    def response(self, request: HttpRequest, error: Exception | None = None) -> HttpResponse:
        """Return the page; log the error of a fault that is not the request's."""
        page = Page(
            template="problem.html",
            title=str(self.title),
            context={"message": self.message},
            status=self.status,
        )
        user = getattr(request, "user", None) if self.needs_database else None
        response = OwnSite().show(request, page, user)
        for name, value in self.headers.items():
            response[name] = value
        if self.status >= HTTPStatus.INTERNAL_SERVER_ERROR and error is not None:
            log_response("%s: %s", error, request.path, response=response, request=request, exception=error)
        return response


NOT_FOUND = Problem(
    HTTPStatus.NOT_FOUND,
    gettext_lazy("Not found"),
    gettext_lazy("There is no page at this address. The job or the run may have been removed."),
)
METHOD_NOT_ALLOWED = Problem(
    HTTPStatus.METHOD_NOT_ALLOWED,
    gettext_lazy("Method not allowed"),
    gettext_lazy("This address does not accept this kind of request. Use the buttons on the pages."),
)
MALFORMED = Problem(
    HTTPStatus.BAD_REQUEST, gettext_lazy("Malformed request"), gettext_lazy("The request is malformed.")
)
TOO_LARGE = Problem(
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    gettext_lazy("Request too large"),
    gettext_lazy("The form has more data than the project's settings allow."),
)
FORGED = Problem(
    HTTPStatus.FORBIDDEN,
    gettext_lazy("Form not accepted"),
    gettext_lazy(
        "Nothing was changed: the form is from an earlier session or from another site, or the browser "
        "blocks cookies. Go back, reload the page and try again."
    ),
)
RATE_LIMITED = Problem(
    HTTPStatus.TOO_MANY_REQUESTS,
    gettext_lazy("Too many requests"),
    gettext_lazy("You have made too many requests. Try again in a moment."),
)
UNAVAILABLE = Problem(
    HTTPStatus.SERVICE_UNAVAILABLE,
    gettext_lazy("Database unavailable"),
    gettext_lazy("The database does not respond, or has no tables for the run records. Try again in a moment."),
    {"Retry-After": "30"},
    needs_database=False,
)
INVALID_SETTINGS = Problem(
    HTTPStatus.INTERNAL_SERVER_ERROR,
    gettext_lazy("Invalid settings"),
    gettext_lazy("The settings of cloudrun_jobs are invalid. The log has the reason; so has “manage.py check”."),
    needs_database=False,
)
INVALID_JOB = Problem(
    HTTPStatus.INTERNAL_SERVER_ERROR,
    gettext_lazy("Invalid job"),
    gettext_lazy("The declaration of the job is invalid. The log has the reason; so has “manage.py check”."),
)
NO_USERS = Problem(
    HTTPStatus.FORBIDDEN,
    gettext_lazy("Sign-in is not configured"),
    gettext_lazy(
        "The project has no signed-in users: add “django.contrib.auth.middleware.AuthenticationMiddleware” to "
        "MIDDLEWARE, or another middleware that sets “request.user”."
    ),
)
NO_SIGN_IN = Problem(
    HTTPStatus.FORBIDDEN,
    gettext_lazy("Sign-in is not configured"),
    gettext_lazy(
        "You are not signed in, and the project has no page to sign in: set LOGIN_URL to the address of one, "
        "or add the admin to the URLs."
    ),
)
BY_STATUS = {each.status: each for each in (NOT_FOUND, METHOD_NOT_ALLOWED, MALFORMED, TOO_LARGE, RATE_LIMITED)}


def refused(scope: str) -> Problem:
    """Return the problem of a user without the scope's permission."""
    name = next(name for name, each in PERMISSIONS.items() if each == scope)
    message = _(
        "Your account does not have access to this page. "
        "It needs staff status and the permission “%(permission)s”."
    ) % {"permission": f"cloudrun_jobs.{name}"}
    return Problem(HTTPStatus.FORBIDDEN, _("Access denied"), message)


def problem_of(error: Exception, scope: str) -> Problem:
    """Return the problem of one of `ERRORS`, in a view that needs the scope."""
    match error:
        case HttpError():
            found = BY_STATUS.get(error.status) or replace(MALFORMED, status=error.status)
            return found.with_headers(error.headers)
        case PermissionDenied():
            return refused(scope)
        case Http404():
            # A handler's own message is translated.
            return replace(NOT_FOUND, message=error.args[0]) if error.args else NOT_FOUND
        case JobRun.DoesNotExist():
            return NOT_FOUND
        case InvalidSettings():
            return INVALID_SETTINGS
        case InvalidJob():
            return INVALID_JOB
        case RequestDataTooBig():
            return TOO_LARGE
    return UNAVAILABLE if isinstance(error, DATABASE_ERRORS) else MALFORMED
