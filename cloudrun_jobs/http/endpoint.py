"""Wrap the actions of the API: authenticate, limit the rate, check the scope, and format errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from django.db.transaction import non_atomic_requests
from django.http import HttpResponseBase, JsonResponse
from django.utils.module_loading import import_string
from django.views.decorators.csrf import csrf_exempt

from cloudrun_jobs.http.errors import HttpError, bad_request, not_found

if TYPE_CHECKING:
    from django.http import HttpRequest

METHOD_OVERRIDES = ("x-http-method-override", "x-http-method", "x-method-override")


@dataclass(frozen=True, slots=True)
class Action:
    """What one method of a URL does, and the scope that it needs.

    A handler that is given as "runs.list_runs" is imported when it is called: each start of a job runs the system
    checks, which import the URLs.
    """

    handler: Callable[..., HttpResponseBase] | str
    scope: str


def endpoint(actions: Mapping[str, Action]) -> Callable[..., HttpResponseBase]:
    """Return the view of a URL, given its actions by method."""
    # CSRF is checked where a session is the credential, and nowhere else. In the transaction of ATOMIC_REQUESTS an
    # action would not see what other processes commit, and a failed run would undo its own record.
    return non_atomic_requests(csrf_exempt(partial(_respond, actions)))


def missing(request: HttpRequest, path: str) -> HttpResponseBase:
    """Answer a URL that does not exist."""
    return _respond({}, request)


def _respond(actions: Mapping[str, Action], request: HttpRequest, **names: str) -> HttpResponseBase:
    try:
        response = _act(actions, request, names)
    except HttpError as error:
        response = error.response()
    response["Cache-Control"] = "no-store"
    return response


def _act(actions: Mapping[str, Action], request: HttpRequest, names: Mapping[str, str]) -> HttpResponseBase:
    from cloudrun_jobs.http import credentials  # See `Action`.
    from cloudrun_jobs.http.authentication import authenticate
    from cloudrun_jobs.http.rate import check_rate

    configured = credentials.load()
    if configured.is_closed:
        raise not_found()
    if any(name in request.headers for name in METHOD_OVERRIDES):
        raise bad_request("invalid_request", "The method of a request cannot be overridden.")
    caller = authenticate(request, configured)
    check_rate(caller.name, configured.rate)
    if not actions:
        raise not_found()
    action = actions.get(request.method or "")
    if action is None:
        message = f"Expected the method {' or '.join(actions)}, got {request.method}."
        allow = {"Allow": ", ".join(actions)}
        raise HttpError(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", message, headers=allow)
    caller.check(action.scope)
    handler = action.handler
    if isinstance(handler, str):
        handler = import_string(f"{__package__}.{handler}")
    response: HttpResponseBase = handler(request, caller, **names)
    return response


def json_response(data: Any, status: HTTPStatus = HTTPStatus.OK, **headers: str) -> JsonResponse:
    return JsonResponse(data, status=status, headers=headers, json_dumps_params={"ensure_ascii": False})
