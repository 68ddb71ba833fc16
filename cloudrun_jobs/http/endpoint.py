"""Wrap the actions of the API: authenticate, limit the rate, check the scope, and format errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from django.db import Error, InterfaceError, OperationalError, ProgrammingError, connections, transaction
from django.http import HttpResponseBase, JsonResponse
from django.utils.log import log_response
from django.views.decorators.csrf import csrf_exempt

from cloudrun_jobs.exceptions import RecordTablesMissing, RecordUnavailable
from cloudrun_jobs.http import credentials
from cloudrun_jobs.http.authentication import ANYBODY, Caller, authenticate
from cloudrun_jobs.http.credentials import Credentials
from cloudrun_jobs.http.errors import HttpError, bad_request, method_not_allowed, not_found, unavailable
from cloudrun_jobs.http.query import Parameter
from cloudrun_jobs.http.rate import check_rate

if TYPE_CHECKING:
    from django.http import HttpRequest

DATABASE_ERRORS = (OperationalError, InterfaceError, ProgrammingError, RecordUnavailable, RecordTablesMissing)

METHOD_OVERRIDES = ("x-http-method-override", "x-http-method", "x-method-override")


@dataclass(frozen=True, slots=True)
class Action:
    """What one method of a URL does, and what the schema says of it."""

    handler: Callable[..., HttpResponseBase]
    scope: str | None  # None: any accepted credential.
    summary: str
    #: The components of the schema that describe the answers, by status.
    answers: Mapping[int, str]
    query: Mapping[str, Parameter] = field(default_factory=dict)
    headers: Mapping[str, Parameter] = field(default_factory=dict)
    #: The statuses of errors that are not common to all actions.
    errors: tuple[int, ...] = ()
    #: Whether the path names a command, whose options the body has: the schema has one path for each command.
    starts_command: bool = False
    #: Whether HEAD is answered like GET, for uptime checks.
    answers_head: bool = False
    #: Whether a caller without a credential may call it as `ANYBODY`.
    is_open: Callable[[Credentials], bool] = lambda configured: False


@dataclass(frozen=True, slots=True)
class Route:
    """A URL: its path, its name, its actions by method, and the parameters of its path with their descriptions."""

    path: str
    name: str
    actions: Mapping[str, Action]
    parameters: Mapping[str, str] = field(default_factory=dict)
    #: Return the methods of one URL, given its parameters, if its actions are not of the same URLs.
    methods: Callable[..., Iterable[str]] | None = None

    @property
    def view(self) -> Callable[..., HttpResponseBase]:
        return _view(partial(_respond, self))


def missing(request: HttpRequest, path: str) -> HttpResponseBase:
    """Answer a URL that does not exist."""
    return _respond(Route("", "", {}), request)


def _view(respond: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    # CSRF is checked where a session is the credential, and nowhere else.
    view = csrf_exempt(respond)
    for alias in connections:  # A request may wait for a run that others write.
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


def _respond(route: Route, request: HttpRequest, **names: str) -> HttpResponseBase:
    try:
        response = _act(route, request, names)
    except HttpError as error:
        response = error.response()
    except DATABASE_ERRORS as error:
        response = unavailable("The database does not answer, or has no tables for the run records.").response()
        log_response(
            "%s: %s", response.reason_phrase, request.path, response=response, request=request, exception=error
        )
    response["Cache-Control"] = "no-store"
    return response


def _act(route: Route, request: HttpRequest, names: Mapping[str, str]) -> HttpResponseBase:
    configured, actions = credentials.load(), route.actions
    action = actions.get(request.method or "")
    if request.method == "HEAD" and "GET" in actions and actions["GET"].answers_head:
        action = actions["GET"]
    is_open = action is not None and action.is_open(configured)
    if configured.is_closed and not is_open:
        raise not_found()
    if any(name in request.headers for name in METHOD_OVERRIDES):
        raise bad_request("invalid_request", "The method of a request cannot be overridden.")
    caller = _caller(request, configured, is_open=is_open)
    if not actions:
        raise not_found()
    if action is None:
        raise method_not_allowed(request.method, route.methods(**names) if route.methods else actions)
    if action.scope is not None and not is_open:
        caller.check(action.scope)
    return action.handler(request, caller, **names)


def _caller(request: HttpRequest, configured: Credentials, *, is_open: bool) -> Caller:
    """Return the caller, having counted its request; for an open action, `ANYBODY` if it is not accepted."""
    try:
        caller = authenticate(request, configured)
    except (HttpError, Error):
        if not is_open:
            raise
        return ANYBODY
    check_rate(caller.name, configured.rate)
    return caller


def json_response(data: Any, status: HTTPStatus = HTTPStatus.OK, **headers: str) -> JsonResponse:
    return JsonResponse(data, status=status, headers=headers, json_dumps_params={"ensure_ascii": False})
