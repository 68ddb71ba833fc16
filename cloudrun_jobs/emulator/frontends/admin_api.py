"""The HTTP admin API: control the faults, clock and tokens of an emulator in another process, and publish keys."""

from __future__ import annotations

import hashlib
import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cloudrun_jobs.emulator.errors import ServiceError
from cloudrun_jobs.emulator.web import Request, Response, failure, http_failure, json_response

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudrun_jobs.emulator.server import Emulator
    from cloudrun_jobs.emulator.service import Caller

PATH_PREFIX = "/_emulator/"
CERTIFICATES_PATH = "/oauth2/v1/certs"
KEYS_PATH = "/oauth2/v3/certs"
TOKEN_INFO_PATHS = ("/tokeninfo", "/oauth2/v1/tokeninfo", "/oauth2/v2/tokeninfo", "/oauth2/v3/tokeninfo")
SCOPES = "https://www.googleapis.com/auth/cloud-platform https://www.googleapis.com/auth/userinfo.email openid"
TOKEN_LIFETIME = 3599  # seconds
DISCOVERY_PATH = "/.well-known/openid-configuration"
MAX_NUMBER = 1e18


class AdminApi:
    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._handlers: dict[str, Callable[[dict[str, Any]], Any]] = {
            "GET faults": lambda _: emulator.faults.pending(),
            "POST faults": self._plan,
            "DELETE faults": lambda _: emulator.faults.clear(),
            "GET clock": lambda _: self._clock(),
            "POST clock": self._set_clock,
            "POST prune": lambda body: emulator.prune(_value(body, "execution", "a text")),
            "POST maintain": self._maintain,
            "POST token": self._issue_token,
            "POST images": lambda body: emulator.images.push(_value(body, "image", "a text")),
        }

    def respond(self, request: Request, _: Caller, endpoint: str) -> Response:
        handler = self._handlers.get(f"{request.method} {endpoint}")
        if handler is None:
            return http_failure(404, f"The admin API has no endpoint {request.method} {request.path}.")
        try:
            return json_response(handler(_body(request)) or {})
        except ServiceError as error:
            return failure(error)
        except ValueError as error:
            return http_failure(400, f"The request to {request.path} is invalid: {error}.")

    def certificates(self, _: Request, __: Caller) -> Response:
        return json_response(self._emulator.tokens.public_keys())

    def keys(self, _: Request, __: Caller) -> Response:
        return json_response(self._emulator.tokens.keys())

    def discovery(self, _: Request, __: Caller) -> Response:
        """Return the OpenID configuration, which points verifiers of OIDC tokens to the keys."""
        issuer = self._emulator.http
        return json_response({"issuer": issuer, "jwks_uri": issuer + KEYS_PATH})

    def token_info(self, request: Request, _: Caller) -> Response:
        """Return the account of an access token, as Google's OAuth service does."""
        email = self._emulator.tokens.principal(f"Bearer {request.values.get('access_token', '')}")
        if email is None:
            return json_response({"error": "invalid_token", "error_description": "Invalid Value"}, 400)
        account = str(int.from_bytes(hashlib.sha256(email.encode()).digest()[:8], "big"))
        return json_response(
            {
                "azp": account,
                "aud": account,
                "sub": account,
                "scope": SCOPES,
                "exp": str(int(time.time()) + TOKEN_LIFETIME),
                "expires_in": str(TOKEN_LIFETIME),
                "email": email,
                "email_verified": "true",
                "access_type": "online",
            }
        )

    def _plan(self, body: dict[str, Any]) -> None:
        self._emulator.faults.plan(**{"what": _value(body, "what", "a text"), **body})

    def _maintain(self, body: dict[str, Any]) -> None:
        seconds = _value({"seconds": 10.0, **body}, "seconds", "a number")
        self._emulator.maintain(_value(body, "execution", "a text"), seconds)

    def _issue_token(self, body: dict[str, Any]) -> dict[str, str]:
        """Return an access token of the account, or an ID token for an audience."""
        tokens, email = self._emulator.tokens, _value(body, "email", "a text")
        if "audience" in body:
            return {"id_token": tokens.id_token(email, _value(body, "audience", "a text"), self._emulator.http)}
        return {"access_token": tokens.access_token(email)}

    def _clock(self) -> dict[str, Any]:
        clock = self._emulator.clock
        return {"now": clock.now().isoformat(), "frozen": clock.frozen}

    def _set_clock(self, body: dict[str, Any]) -> dict[str, Any]:
        """Freeze the clock now or at an instant, advance it by seconds, or scale it by a factor."""
        clock = self._emulator.clock
        if "freeze" in body:
            clock.freeze(_instant(body["freeze"]))
        elif "advance" in body:
            clock.advance(_value(body, "advance", "a number"))
        elif "scale" in body:
            clock.scale(_value(body, "scale", "a number"))
        else:
            raise ValueError("expected freeze, advance or scale")
        return self._clock()


def _body(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(request.get_data() or b"{}")
    except (ValueError, RecursionError) as error:
        raise ValueError("expected a body in JSON") from error
    if isinstance(body, dict):
        return body
    raise ValueError(f"expected a JSON object, got {json.dumps(body)}")


def _value(body: dict[str, Any], name: str, expected: str) -> Any:
    """Return a field of a request, or raise ValueError if it is missing or of another type."""
    value = body.get(name)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < MAX_NUMBER
    if is_number if expected == "a number" else isinstance(value, str) and value:
        return value
    raise ValueError(f"expected {expected} for {name}, got {json.dumps(value) if name in body else 'none'}")


def _instant(value: Any) -> datetime | None:
    """Return the instant of ``freeze``: None, the current one, for true."""
    if value is True:
        return None
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except (TypeError, ValueError, OverflowError) as error:
        expected = "true, or an instant such as 2026-03-01T12:00:00Z"
        raise ValueError(f"expected {expected} for freeze, got {json.dumps(value)}") from error


def no_metadata(_: Request, __: Caller, **___: str) -> Response:
    """Answer a client that looks for Google's metadata server."""
    message = "The Cloud Run emulator has no metadata server: tasks have no credentials."
    return failure(ServiceError("NOT_FOUND", message))
