"""The errors of Google's clients, said in this package's words, with the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from google.api_core import exceptions as api
from google.auth.exceptions import GoogleAuthError

from ...exceptions import AccessDenied, JobNotDeployed, OutcomeUnknown, QuotaExhausted, ServiceError

# After these the service may have done what was asked.
UNCERTAIN = (api.ServerError, api.Aborted, api.Cancelled, api.RetryError)


@contextmanager
def translated(resource: str, permissions: str, *, endpoint: str | None) -> Iterator[None]:
    """Turn what a call about `resource` raises into this package's errors."""
    try:
        yield
    except (api.GoogleAPICallError, api.RetryError, GoogleAuthError) as error:
        raise _translate(error, resource, permissions, endpoint) from error


def _translate(error: Exception, resource: str, permissions: str, endpoint: str | None) -> ServiceError:
    said = getattr(error, "message", None) or str(error)
    match error:
        case api.Forbidden():
            hint = f"Grant {permissions} on it to the identity this process runs as."
            return AccessDenied(f"{resource}: permission denied. {said}", hint=hint)
        case GoogleAuthError() | api.Unauthorized():
            hint = "Attach a service account to the workload, or run `gcloud auth application-default login`."
            return AccessDenied(f"{resource}: no valid credentials. {said}", hint=hint)
        case api.NotFound():
            return JobNotDeployed(f"{resource}: Cloud Run has no such job. {said}", hint=_how_to_create(resource))
        case api.TooManyRequests():
            return QuotaExhausted(f"{resource}: a quota ran out. {said}", hint="Nothing was started; try later.")
        case _ if isinstance(error, UNCERTAIN):
            hint = (
                f"Is a server running at {endpoint}?"
                if endpoint
                else "It may have been done: look before repeating."
            )
            return OutcomeUnknown(f"{resource}: no answer. {said}", hint=hint)
    return ServiceError(f"{resource}: refused. {said}")


def _how_to_create(resource: str) -> str:
    _, project, _, region, _, job, *_ = resource.split("/")
    return (
        f"Create it: gcloud run jobs create {job} --project {project} --region {region} --image IMAGE"
        " --command python,manage.py"
    )
