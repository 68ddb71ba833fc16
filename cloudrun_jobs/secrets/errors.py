"""Translate the errors of Google's client.

The original errors are not chained: their frames hold requests, which contain the values of secrets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from google.api_core import exceptions as api
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, RefreshError, TransportError

from cloudrun_jobs.exceptions import (
    InvalidSecret,
    SecretAccessDenied,
    SecretCorrupted,
    SecretDisabled,
    SecretError,
    SecretNotFound,
    SecretUnavailable,
)

GOOGLE_ERRORS = (api.GoogleAPIError, GoogleAuthError)
# Calls that raise these are retried. They may have taken effect, except after UNSENT_ERRORS.
TRANSIENT_ERRORS = (
    api.ServerError,
    api.TooManyRequests,
    api.Aborted,
    api.Cancelled,
    api.RetryError,
    TransportError,
)
UNSENT_ERRORS = (api.TooManyRequests, TransportError)
API_NOT_ENABLED = "has not been used in project"  # In the message about an API that is not enabled.
CREDENTIAL_ERRORS = (api.Unauthorized, DefaultCredentialsError, RefreshError)
# gRPC reports expired credentials as an unavailable service.
INVALID_CREDENTIALS_PATTERN = re.compile(r"plugin failed.*(invalid_grant|[Rr]eauthentication)", re.DOTALL)
STATE_PATTERN = re.compile(r"versions/(\d+)\W+is in (\w+) state")


@dataclass(frozen=True, slots=True)
class Purpose:
    """The purpose of a call, for its error messages."""

    secret: str
    project: str
    verb: str  # "read", "updated"
    role: str
    number: int | None = None

    @property
    def subject(self) -> str:
        version = "" if self.number is None else f" version {self.number}"
        return f"{self.secret}:{version} cannot be {self.verb} in project {self.project}"


def is_transient(error: Exception) -> bool:
    """Return True if the call is to be retried."""
    if INVALID_CREDENTIALS_PATTERN.search(str(error)):
        return False
    return isinstance(error, TRANSIENT_ERRORS) and not isinstance(error, api.MethodNotImplemented)


def disabled_number(error: Exception) -> int | None:
    """Return the number of the disabled or destroyed version that the error names; None if it names none."""
    found = STATE_PATTERN.search(str(error)) if isinstance(error, api.FailedPrecondition) else None
    return int(found[1]) if found else None


def translate(error: Exception, purpose: Purpose, endpoint: str | None) -> SecretError:
    """Return this package's exception for an error of Google's client."""
    message = str(getattr(error, "message", None) or error)
    match error:
        case api.Forbidden() if API_NOT_ENABLED in message:
            hint = (
                f"Enable the API: gcloud services enable secretmanager.googleapis.com --project {purpose.project}"
            )
            return SecretAccessDenied(f"{purpose.subject}: the API is not enabled.", hint=hint)
        case api.Forbidden():
            hint = f"Grant {purpose.role} on the secret to the account of this process, or create the secret."
            return SecretAccessDenied(f"{purpose.subject}: permission denied.", hint=hint)
        case _ if isinstance(error, CREDENTIAL_ERRORS) or INVALID_CREDENTIALS_PATTERN.search(message):
            hint = f"Attach a service account with {purpose.role}, or run `gcloud auth application-default login`."
            return SecretAccessDenied(f"{purpose.subject}: there are no valid credentials.", hint=hint)
        case api.NotFound():
            return _not_found(purpose)
        case api.FailedPrecondition():
            return _failed_precondition(purpose, message)
        case api.InvalidArgument() if "checksum" in message.lower() or "crc32c" in message.lower():
            return SecretCorrupted(
                f"{purpose.subject}: the value was damaged in transit.", hint="Repeat the update."
            )
    if is_transient(error):
        kind = type(error).__name__
        hint = f"Is the emulator running at {endpoint}?" if endpoint else "Try again later."
        return SecretUnavailable(f"{purpose.subject}: Secret Manager did not respond ({kind}).", hint=hint)
    hint = "Compare the name and the value with Secret Manager's rules."
    return InvalidSecret(
        f"{purpose.subject}: Secret Manager rejected the request ({type(error).__name__}).", hint=hint
    )


def _failed_precondition(purpose: Purpose, message: str) -> SecretError:
    if (state := STATE_PATTERN.search(message)) is None:  # The emulator explains that the port is the wrong one.
        return SecretError(f"{purpose.subject}: {message}")
    what = f"version {state[1]} is {state[2].lower()}"
    return SecretDisabled(f"{purpose.subject}: {what}.", hint="Use another version, or add or enable one.")


def _not_found(purpose: Purpose) -> SecretError:
    if purpose.number is not None:
        hint = f"List them: gcloud secrets versions list {purpose.secret} --project {purpose.project}"
        return SecretNotFound(f"{purpose.subject}: there is no such version.", hint=hint)
    create = f"gcloud secrets create {purpose.secret} --replication-policy automatic --project {purpose.project}"
    hint = f"Create it with `{create}` and add a version, or pass create=True to secrets.update()."
    return SecretNotFound(f"{purpose.subject}: it does not exist, or has no versions.", hint=hint)
