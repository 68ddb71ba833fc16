"""Authenticate a request: by a token, Google's ID token, or the session of a member of staff."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from django.http import HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.utils import timezone

from cloudrun_jobs.http.body import read_body
from cloudrun_jobs.http.certificates import CertificatesUnavailable, certificates
from cloudrun_jobs.http.credentials import OIDC, TRIGGER, Credentials, Token
from cloudrun_jobs.http.errors import HttpError, bad_request, forbidden, unavailable

if TYPE_CHECKING:
    from django.http import HttpRequest

CLOCK_SKEW = 10  # seconds that the clocks of Google and of this machine may differ by
PERMISSIONS = {"view_jobrun": "read", "run_job": "run", "cancel_job": "cancel"}  # Each with its scope.
NOT_ACCEPTED = "The credential is not accepted: it is unknown, expired or for another service."


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller, and what it may do."""

    name: str  # Recorded as the requester of its runs.
    scopes: frozenset[str]
    commands: frozenset[str] | None = None  # None: all.
    user: Any = None  # Of a session.
    is_service: bool = False  # With an ID token signed by Google, as Cloud Scheduler sends it.
    expires: float | None = None  # In seconds since the epoch.

    def may_use(self, command: str) -> bool:
        return self.commands is None or command in self.commands

    def check(self, scope: str, command: str | None = None) -> None:
        """Raise `HttpError` unless the caller has the scope, and may use the command."""
        if scope not in self.scopes and not (scope == TRIGGER and "run" in self.scopes):
            raise forbidden(f"{self.name} does not have the scope {'run' if scope == TRIGGER else scope!r}.")
        if command is not None and not self.may_use(command):
            raise forbidden(f"{self.name} may not use the command {command!r}.")


ANONYMOUS = Caller("anonymous", frozenset())


def authenticate(request: HttpRequest, credentials: Credentials) -> Caller:
    """Return the caller. Raises `HttpError` without a credential, and for one that is not accepted."""
    bearer = _bearer(request)
    is_given = bearer is not None
    for header in {token.header for token in credentials.tokens}:
        value = bearer if header == "authorization" else request.headers.get(header)
        if value is None:
            continue
        is_given = True
        if token := _matching(credentials.tokens, header, value):
            expires = None if token.expires is None else token.expires.timestamp()
            return Caller(f"token {token.name}", token.scopes, token.commands, expires=expires)
    if bearer is not None and credentials.oidc is not None and bearer.count(".") == 2:
        return _oidc_caller(bearer, credentials.oidc)
    if not is_given and credentials.session and (caller := _session_caller(request)):
        return caller
    raise _unauthenticated(NOT_ACCEPTED if is_given else "The request has no credential.")


def _bearer(request: HttpRequest) -> str | None:
    """Return the bearer token of the request."""
    header = request.headers.get("authorization")
    if header is None:
        return None
    if "," in header:  # Servers join several headers of a name.
        raise bad_request("invalid_request", "Expected one Authorization header.")
    scheme, _, value = header.strip().partition(" ")
    return value.strip() if scheme.lower() == "bearer" else None


def _matching(tokens: tuple[Token, ...], header: str, value: str) -> Token | None:
    """Return the token of that value. The time it takes does not depend on the value."""
    digest, now = hashlib.sha256(value.encode(errors="surrogateescape")).digest(), timezone.now()
    found = None
    for token in tokens:
        is_equal = hmac.compare_digest(token.digest, digest)
        if is_equal and token.header == header and (token.expires is None or now < token.expires):
            found = token
    return found


def _oidc_caller(encoded: str, oidc: OIDC) -> Caller:
    claims = _verified_claims(encoded, oidc)
    email = claims.get("email")
    if claims.get("iss") not in oidc.issuers or claims.get("email_verified") is not True:
        raise _unauthenticated(NOT_ACCEPTED)
    if not isinstance(email, str) or email not in oidc.emails:
        raise _unauthenticated(NOT_ACCEPTED)
    expires = float(claims["exp"])
    return Caller(email, oidc.scopes | {TRIGGER}, oidc.commands, is_service=True, expires=expires)


def _verified_claims(encoded: str, oidc: OIDC) -> Mapping[str, Any]:
    from google.auth import exceptions, jwt

    try:
        header = jwt.decode_header(encoded)  # type: ignore[no-untyped-call]
        keys = certificates(oidc.certs_url).for_key(str(header.get("kid")))
        claims: Mapping[str, Any] = jwt.decode(  # type: ignore[no-untyped-call]
            encoded, certs=keys, audience=oidc.audience, clock_skew_in_seconds=CLOCK_SKEW
        )
    except CertificatesUnavailable as error:
        raise unavailable(f"The signature cannot be verified: {error}") from None
    # google-auth checks the shape of a token in few places.
    except (exceptions.GoogleAuthError, ValueError, TypeError, KeyError, AttributeError):
        raise _unauthenticated(NOT_ACCEPTED) from None
    return claims


def _unauthenticated(message: str) -> HttpError:
    headers = {"WWW-Authenticate": "Bearer"}
    return HttpError(HTTPStatus.UNAUTHORIZED, "unauthenticated", message, headers=headers)


def _session_caller(request: HttpRequest) -> Caller | None:
    """Return the signed-in member of staff. Raises `HttpError` for an unsafe request without a CSRF token."""
    if (caller := staff_caller(getattr(request, "user", None))) is None:
        return None
    if request.method == "POST":
        read_body(request)  # The check parses forms. After it has read the stream, there is no body left to read.
    if (reason := csrf_failure(request)) is not None:
        raise HttpError(HTTPStatus.FORBIDDEN, "csrf_failed", f"The CSRF check failed: {reason}")
    return caller


def csrf_failure(request: HttpRequest) -> str | None:
    """Return why an unsafe request is not accepted as one of this site's pages; None if it is."""
    check = _CsrfCheck(lambda request: HttpResponse())
    check.process_request(request)
    reason: Any = check.process_view(request, HttpResponse, (), {})
    return None if reason is None else str(reason)


def staff_caller(user: Any) -> Caller | None:
    """Return the member of staff with the scopes of their permissions; None for any other user."""
    if user is None or not (user.is_authenticated and user.is_active and user.is_staff):
        return None
    granted = (scope for name, scope in PERMISSIONS.items() if user.has_perm(f"cloudrun_jobs.{name}"))
    return Caller(user.get_username(), frozenset(granted), user=user)


class _CsrfCheck(CsrfViewMiddleware):
    """Returns the reason for which a request is rejected, in place of a response."""

    def _reject(self, request: HttpRequest, reason: str) -> Any:
        return reason
