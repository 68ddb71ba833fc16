"""Translate the errors of Google's clients into this package's, with a hint."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from google.api_core import exceptions as api
from google.auth.exceptions import GoogleAuthError

from cloudrun_jobs import conf
from cloudrun_jobs.environ import EMULATOR_VARIABLE
from cloudrun_jobs.exceptions import (
    AccessDenied,
    JobNotDeployed,
    OutcomeUnknown,
    QuotaExhausted,
    ServiceError,
    ServiceUnavailable,
    sentence,
)

# In the message about an API that is not enabled in the project.
NOT_ENABLED = "has not been used in project"
API_DISABLED = "SERVICE_DISABLED"  # The reason in its details.

CREATE_JOB_HINT = "Create it: manage.py sync_cloudrun_jobs --image IMAGE"

LOGIN_HINT = "Attach a service account to the workload, or run `gcloud auth application-default login`."

# In gRPC's message about a call that was not sent, for it has no connection.
NOT_CONNECTED = "failed to connect to all addresses"
HTTP_REQUEST, HTTP_ANSWER = b"HEAD / HTTP/1.0\r\n\r\n", b"HTTP/"
PROBE_SECONDS = 1.0

# After these errors the call may have taken effect.
AMBIGUOUS_ERRORS = (api.ServerError, api.Aborted, api.Cancelled, api.RetryError)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiMethod:
    """What a method requires, and what its errors mean."""

    permission: str
    role: str
    also: str = ""  # Another role that it requires, on another resource.
    polls: bool = False  # Is it repeated until a server that was stopped runs again?
    starts: bool = False  # Does it start an execution? Then it is not retried after an ambiguous error.
    hints: Mapping[type[Exception], str] = field(default_factory=dict)  # What to do after an error.


@contextmanager
def translate_errors(resource: str, method: ApiMethod, *, endpoint: str | None) -> Iterator[None]:
    """Raise this package's error for an error of a call that concerns `resource`."""
    try:
        yield
    except (api.GoogleAPICallError, api.RetryError, GoogleAuthError) as error:
        raise _translate(error, resource, method, endpoint) from error


def _translate(error: Exception, resource: str, method: ApiMethod, endpoint: str | None) -> ServiceError:
    message = sentence(getattr(error, "message", None) or str(error))
    match error:
        case api.Forbidden():
            hint = _enable_hint(error) if NOT_ENABLED in message else _grant_hint(method)
            return AccessDenied(f"{resource}: permission denied. {message}", hint=hint)
        case GoogleAuthError() | api.Unauthorized():
            hint = _token_hint(endpoint) if endpoint else LOGIN_HINT
            return AccessDenied(f"{resource}: no valid credentials. {message}", hint=hint)
        case api.NotFound() if method.starts:
            return JobNotDeployed(f"{resource}: Cloud Run has no such job. {message}", hint=CREATE_JOB_HINT)
        case api.TooManyRequests() | api.RetryError(cause=api.TooManyRequests()):
            hint = "Nothing was started; retry later." if method.starts else "Retry later."
            return QuotaExhausted(f"{resource}: a quota is exhausted. {message}", hint=hint)
        case _ if hints := [hint for kind, hint in method.hints.items() if isinstance(error, kind)]:
            return ServiceError(f"{resource}: rejected. {message}", hint=hints[0])
        case api.MethodNotImplemented():
            pass  # It did nothing.
        case _ if isinstance(error, AMBIGUOUS_ERRORS):
            return _no_response(resource, message, method, endpoint)
    return ServiceError(f"{resource}: rejected. {message}")


def disabled_api(error: BaseException | None) -> str:
    """Return the name of the API whose being disabled caused an error of Google's clients; "" for other errors."""
    if not isinstance(error, api.GoogleAPICallError) or error.reason != API_DISABLED:
        return ""
    return str((error.metadata or {}).get("service", ""))


def _enable_hint(error: Exception) -> str:
    return f"Enable it with `{' '.join(('gcloud services enable', disabled_api(error))).strip()}`."


def _problem_of(endpoint: str) -> str:
    """Return why no gRPC client can connect to the server at the endpoint, or "" if there is no such reason."""
    host, _, port = endpoint.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_SECONDS) as connection:
            connection.sendall(HTTP_REQUEST)
            if connection.recv(len(HTTP_ANSWER)) == HTTP_ANSWER:
                return f"The server at {endpoint} speaks HTTP, not gRPC; the emulator has a port for each."
    except ConnectionRefusedError:
        return f"No server listens at {endpoint}."
    except OSError:
        pass  # It listens, but closed the connection or did not answer.
    return ""


def _endpoint_hint() -> str:
    from_options = conf.load().options.get("endpoint")
    place = conf.setting_name("OPTIONS", "endpoint") if from_options else EMULATOR_VARIABLE
    return f"Start `manage.py cloudrun_emulator`, and set {place} to its gRPC address."


def _token_hint(endpoint: str) -> str:
    """Return what to do after a server on this machine, where nothing else identifies the caller."""
    place = conf.setting_name("OPTIONS", "access_token")
    if conf.load().options.get("access_token") is None:
        return f"The server at {endpoint} requires an access token: set {place}."
    return f"{place} is invalid or has expired: set it to a new token of the server at {endpoint}."


def _grant_hint(method: ApiMethod) -> str:
    also = f", and {method.also}" if method.also else ""
    return f"Grant {method.permission} ({method.role}) on it{also} to the identity this process runs as."


def _no_response(resource: str, message: str, method: ApiMethod, endpoint: str | None) -> ServiceError:
    if endpoint and NOT_CONNECTED in message:
        if problem := _problem_of(endpoint):
            kind = ServiceUnavailable if method.polls else ServiceError
            return kind(f"{resource}: {problem}", hint=_endpoint_hint())
        message = f"The server at {endpoint} accepts no gRPC call."
    message = f"{resource}: no response. {message}"
    where = f"Is a server running at {endpoint}?" if endpoint else ""
    if method.starts:
        return OutcomeUnknown(message, hint=f"{where} An execution may have started.".strip())
    return ServiceUnavailable(message, hint=where)
