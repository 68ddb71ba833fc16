"""The errors of Google's clients, said in this package's words, with the remedy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from google.api_core import exceptions as api
from google.auth.exceptions import GoogleAuthError

from cloudrun_jobs.exceptions import (
    AccessDenied,
    JobNotDeployed,
    OutcomeUnknown,
    QuotaExhausted,
    ServiceError,
    ServiceUnavailable,
)

# So Google says of a service that the project did not enable.
DISABLED = "has not been used in project"

HOW_TO_CREATE = "Create it: manage.py sync_cloudrun_jobs --image IMAGE"

# After these the service may have done what was asked.
UNCERTAIN = (api.ServerError, api.Aborted, api.Cancelled, api.RetryError)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiMethod:
    """What a call needs, and whether it starts an execution: that alone must not be repeated blindly.

    `hints` say what to do after a refusal that means something in this call.
    """

    permission: str
    role: str
    also: str = ""  # What else it needs, on something else.
    starts: bool = False
    hints: Mapping[type[Exception], str] = field(default_factory=dict)


@contextmanager
def translate_errors(resource: str, call: ApiMethod, *, endpoint: str | None) -> Iterator[None]:
    """Turn what a call about `resource` raises into this package's errors."""
    try:
        yield
    except (api.GoogleAPICallError, api.RetryError, GoogleAuthError) as error:
        raise _translate(error, resource, call, endpoint) from error


def _translate(error: Exception, resource: str, call: ApiMethod, endpoint: str | None) -> ServiceError:
    said = _sentence(getattr(error, "message", None) or str(error))
    match error:
        case api.Forbidden():
            hint = _how_to_grant(call) if DISABLED not in said else "Enable it with `gcloud services enable`."
            return AccessDenied(f"{resource}: permission denied. {said}", hint=hint)
        case GoogleAuthError() | api.Unauthorized():
            hint = "Attach a service account to the workload, or run `gcloud auth application-default login`."
            return AccessDenied(f"{resource}: no valid credentials. {said}", hint=hint)
        case api.NotFound() if call.starts:
            return JobNotDeployed(f"{resource}: Cloud Run has no such job. {said}", hint=HOW_TO_CREATE)
        case api.TooManyRequests() | api.RetryError(cause=api.TooManyRequests()):
            hint = "Nothing was started; try later." if call.starts else "Try later."
            return QuotaExhausted(f"{resource}: a quota ran out. {said}", hint=hint)
        case _ if hint := _hint(error, call):
            return ServiceError(f"{resource}: refused. {said}", hint=hint)
        case api.MethodNotImplemented():
            pass  # A server that cannot has not.
        case _ if isinstance(error, UNCERTAIN):
            return _no_answer(f"{resource}: no answer. {said}", call, endpoint)
    return ServiceError(f"{resource}: refused. {said}")


def _sentence(words: str) -> str:
    """Return them with a full stop: Google's messages have one or not, and more is said after them."""
    return words if words.endswith((".", "!", "?")) else f"{words}."


def _hint(error: Exception, call: ApiMethod) -> str:
    return next((hint for kind, hint in call.hints.items() if isinstance(error, kind)), "")


def _how_to_grant(call: ApiMethod) -> str:
    also = f", and {call.also}" if call.also else ""
    return f"Grant {call.permission} ({call.role}) on it{also} to the identity this process runs as."


def _no_answer(words: str, call: ApiMethod, endpoint: str | None) -> ServiceError:
    where = f"Is a server running at {endpoint}?" if endpoint else ""
    if call.starts:
        return OutcomeUnknown(words, hint=f"{where} It may have been started: look before repeating.".strip())
    return ServiceUnavailable(words, hint=where)
