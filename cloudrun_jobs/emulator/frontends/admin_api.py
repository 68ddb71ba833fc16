"""The HTTP admin API: control the faults, clock and tokens of an emulator in another process, and publish keys."""

from __future__ import annotations

import hashlib
import json
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cloudrun_jobs.emulator.errors import ServiceError
from cloudrun_jobs.emulator.faults import UnknownFault
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


class AdminApi:
    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._handlers: dict[str, Callable[[dict[str, Any]], Any]] = {
            "GET faults": lambda _: emulator.faults.pending(),
            "POST faults": lambda body: emulator.faults.plan(**body),
            "DELETE faults": lambda _: emulator.faults.clear(),
            "GET clock": lambda _: self._clock(),
            "POST clock": self._set_clock,
            "POST prune": lambda body: emulator.prune(body["execution"]),
            "POST maintain": lambda body: emulator.maintain(**body),
            "POST token": self._issue_token,
            "POST images": lambda body: emulator.images.push(body["image"]),
        }

    def respond(self, request: Request, _: Caller, endpoint: str) -> Response:
        handler = self._handlers.get(f"{request.method} {endpoint}")
        if handler is None:
            return http_failure(404, f"The admin API has no endpoint {request.method} {request.path}.")
        try:
            return json_response(handler(json.loads(request.get_data() or b"{}")) or {})
        except ServiceError as error:
            return failure(error)
        except UnknownFault as error:
            return http_failure(400, str(error))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            return http_failure(400, f"The request to {request.path} is invalid: {error}")

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

    def _issue_token(self, body: dict[str, Any]) -> dict[str, str]:
        """Return an access token of the account, or an ID token for an audience."""
        tokens = self._emulator.tokens
        if "audience" in body:
            return {"id_token": tokens.id_token(body["email"], body["audience"], self._emulator.http)}
        return {"access_token": tokens.access_token(body["email"])}

    def _clock(self) -> dict[str, Any]:
        clock = self._emulator.clock
        return {"now": clock.now().isoformat(), "frozen": clock.frozen}

    def _set_clock(self, body: dict[str, Any]) -> dict[str, Any]:
        """Freeze the clock now or at an instant, advance it by seconds, or scale it by a factor."""
        clock = self._emulator.clock
        if "freeze" in body:
            at = body["freeze"]
            clock.freeze(datetime.fromisoformat(at) if isinstance(at, str) else None)
        elif "advance" in body:
            clock.advance(float(body["advance"]))
        else:
            clock.scale(float(body["scale"]))
        return self._clock()
