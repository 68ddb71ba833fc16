"""The errors of Google's clients, said in this package's words, with the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from google.api_core import exceptions as api
from google.auth.exceptions import GoogleAuthError

from ...exceptions import (
    AccessDenied,
    JobNotDeployed,
    OutcomeUnknown,
    QuotaExhausted,
    ServiceError,
    ServiceUnavailable,
)

# After these the service may have done what was asked.
UNCERTAIN = (api.ServerError, api.Aborted, api.Cancelled, api.RetryError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a call needs, and whether it starts an execution: that alone must not be repeated blindly."""

    permission: str
    role: str
    starts: bool = False


@contextmanager
def translated(resource: str, call: Call, *, endpoint: str | None) -> Iterator[None]:
    """Turn what a call about `resource` raises into this package's errors."""
    try:
        yield
    except (api.GoogleAPICallError, api.RetryError, GoogleAuthError) as error:
        raise _translate(error, resource, call, endpoint) from error


def _translate(error: Exception, resource: str, call: Call, endpoint: str | None) -> ServiceError:
    said = getattr(error, "message", None) or str(error)
    match error:
        case api.Forbidden():
            hint = f"Grant {call.permission} ({call.role}) on it to the identity this process runs as."
            return AccessDenied(f"{resource}: permission denied. {said}", hint=hint)
        case GoogleAuthError() | api.Unauthorized():
            hint = "Attach a service account to the workload, or run `gcloud auth application-default login`."
            return AccessDenied(f"{resource}: no valid credentials. {said}", hint=hint)
        case api.NotFound() if call.starts:
            return JobNotDeployed(f"{resource}: Cloud Run has no such job. {said}", hint=_how_to_create(resource))
        case api.TooManyRequests():
            hint = "Nothing was started; try later." if call.starts else "Try later."
            return QuotaExhausted(f"{resource}: a quota ran out. {said}", hint=hint)
        case api.MethodNotImplemented():
            pass  # A server that cannot has not.
        case _ if isinstance(error, UNCERTAIN):
            return _no_answer(f"{resource}: no answer. {said}", call, endpoint)
    return ServiceError(f"{resource}: refused. {said}")


def _no_answer(words: str, call: Call, endpoint: str | None) -> ServiceError:
    where = f"Is a server running at {endpoint}?" if endpoint else ""
    if call.starts:
        return OutcomeUnknown(words, hint=f"{where} It may have been started: look before repeating.".strip())
    return ServiceUnavailable(words, hint=where)


def _how_to_create(resource: str) -> str:
    _, project, _, region, _, job = resource.split("/")
    return (
        f"Create it: gcloud run jobs create {job} --project {project} --region {region} --image IMAGE"
        " --command python,manage.py"
    )
