"""Wrap the actions of the API: authenticate, limit the rate, check the scope, and format errors."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from django.core.exceptions import BadRequest, RequestDataTooBig, SuspiciousOperation
from django.db import Error, InterfaceError, OperationalError, ProgrammingError
from django.http import HttpResponseBase, JsonResponse
from django.http.multipartparser import MultiPartParserError
from django.utils.log import log_response

from cloudrun_jobs import conf
from cloudrun_jobs.exceptions import InvalidJob, InvalidSettings, RecordTablesMissing, RecordUnavailable
from cloudrun_jobs.http import credentials
from cloudrun_jobs.http.authentication import ANONYMOUS, Caller, authenticate
from cloudrun_jobs.http.credentials import Credentials
from cloudrun_jobs.http.errors import (
    HttpError,
    bad_request,
    method_not_allowed,
    not_found,
    too_large,
    unavailable,
)
from cloudrun_jobs.http.rate import check_rate
from cloudrun_jobs.http.route import Route
from cloudrun_jobs.models import JobRun

if TYPE_CHECKING:
    from django.http import HttpRequest

# Django's own refusals, which it answers with an HTML page.
REJECTIONS = (SuspiciousOperation, BadRequest, MultiPartParserError)
DATABASE_ERRORS = (OperationalError, InterfaceError, ProgrammingError, RecordUnavailable, RecordTablesMissing)

METHOD_OVERRIDES = ("x-http-method-override", "x-http-method", "x-method-override")


def respond(route: Route, request: HttpRequest, names: Mapping[str, str]) -> HttpResponseBase:
    """Return the response to a request to a URL with these parameters."""
    try:
        with conf.reading_once():
            response = _act(route, request, names)
    except HttpError as error:
        response = error.response()
    except InvalidSettings as error:
        response = _misconfigured(request, "invalid_settings", "The settings of cloudrun_jobs are invalid.", error)
    except InvalidJob as error:
        response = _misconfigured(request, "invalid_job", "The declaration of the job is invalid.", error)
    except RequestDataTooBig:
        response = too_large("The body exceeds a limit of the project's settings.").response()
    except REJECTIONS as error:
        response = bad_request("invalid_request", f"The request is malformed ({type(error).__name__}).").response()
    except JobRun.DoesNotExist:
        response = not_found("The record of the run has been deleted.").response()
    except DATABASE_ERRORS as error:
        response = unavailable("The database does not answer, or has no tables for the run records.").response()
        log_response(
            "%s: %s", response.reason_phrase, request.path, response=response, request=request, exception=error
        )
    response["Cache-Control"] = "no-store"
    return response


def _misconfigured(request: HttpRequest, code: str, message: str, error: Exception) -> HttpResponseBase:
    """Return the response for a fault of the project, whose details are in the log."""
    hint = "See `manage.py check` in the web service, and its log."
    response = HttpError(HTTPStatus.INTERNAL_SERVER_ERROR, code, message, hint=hint).response()
    log_response("%s: %s", message, request.path, response=response, request=request, exception=error)
    return response


def _act(route: Route, request: HttpRequest, names: Mapping[str, str]) -> HttpResponseBase:
    configured, actions = credentials.load(), route.actions
    action = actions.get(request.method or "")
    if request.method == "HEAD" and "GET" in actions and actions["GET"].allows_head:
        action = actions["GET"]
    is_open = action is not None and action.is_open(configured)
    if configured.is_closed and not is_open:
        raise not_found()
    if any(name in request.headers for name in METHOD_OVERRIDES):
        raise bad_request("invalid_request", "The method of a request cannot be overridden.")
    caller = _caller(request, configured, is_open=is_open)
    if not actions:
        raise not_found(hint="" if request.path.endswith("/") else "The URLs of this API end with a slash.")
    if action is None:
        raise method_not_allowed(request.method, route.methods(**names) if route.methods else actions)
    if action.scope is not None and not is_open:
        caller.check(action.scope)
    return action.handler(request, caller, **names)


def _caller(request: HttpRequest, configured: Credentials, *, is_open: bool) -> Caller:
    """Authenticate the caller and count its request. An open action falls back to `ANONYMOUS`."""
    try:
        caller = authenticate(request, configured)
    except (HttpError, Error):
        if not is_open:
            raise
        return ANONYMOUS
    check_rate(caller.name, configured.rate)
    return caller


def json_response(data: Any, status: HTTPStatus = HTTPStatus.OK, **headers: str) -> JsonResponse:
    return JsonResponse(data, status=status, headers=headers, json_dumps_params={"ensure_ascii": False})
