"""The pages of the dashboard for requests that fail or are refused."""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus

from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.http import Http404
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from cloudrun_jobs.dashboard.errors import FAULTS, METHOD_NOT_ALLOWED, Problem, fault_of
from cloudrun_jobs.http.authentication import PERMISSIONS
from cloudrun_jobs.http.endpoint import REJECTIONS
from cloudrun_jobs.http.errors import HttpError
from cloudrun_jobs.models import JobRun

#: What `problem_of()` has a page for.
ERRORS = (
    HttpError,
    Http404,
    PermissionDenied,
    JobRun.DoesNotExist,
    *REJECTIONS,
    *FAULTS,
)

NOT_FOUND = Problem(
    HTTPStatus.NOT_FOUND,
    gettext_lazy("Not found"),
    gettext_lazy("There is no page at this address. The job or the run may have been removed."),
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
            return replace(found, headers=error.headers)
        case PermissionDenied():
            return refused(scope)
        case Http404():
            # A handler's own message is translated.
            return replace(NOT_FOUND, message=error.args[0]) if error.args else NOT_FOUND
        case JobRun.DoesNotExist():
            return NOT_FOUND
        case RequestDataTooBig():
            return TOO_LARGE
    return fault_of(error) if isinstance(error, FAULTS) else MALFORMED
