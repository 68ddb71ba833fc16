"""The client of the partner's API, which exchanges a token for a new one."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import stamina

ATTEMPTS = 3
TIMEOUT_SECONDS = 10.0  # Of a connection, and of each read.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, JITTER_SECONDS = 1.0, 10.0, 1.0
# Retry-After may ask for a longer pause than the back-off, up to this limit.
RETRY_AFTER_LIMIT_SECONDS = 120.0
MAX_RESPONSE_BYTES = 64 * 1024
TOKEN = re.compile(r"[\x21-\x7e]{6,4096}")
LOOPBACK = {"127.0.0.1", "localhost"}


class PartnerError(Exception):
    """The partner rejected the request, and a retry would not help. The message contains no token."""


class PartnerUnavailable(PartnerError):
    """The partner is unavailable. `retry_after` is the pause in seconds that it asks for, if any."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class _NoRedirects(HTTPRedirectHandler):
    """Reject redirects, which would send the token to another server."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def is_token(text: str) -> bool:
    """Return True if the text can be sent in a header, and is long enough for a token."""
    return TOKEN.fullmatch(text) is not None


def refresh(url: str, token: str, key: str) -> str:
    """Exchange `token` for a new one, in at most three attempts.

    `key` identifies the refresh: a retry with the same token and key gets the same new token.
    Raises `PartnerError`.
    """
    _check(url)
    if not is_token(token):  # The error of an invalid header would show the token.
        raise PartnerError(
            "Expected a token of six or more visible ASCII characters without spaces, got another one."
        )
    for attempt in stamina.retry_context(
        on=_pause,
        attempts=ATTEMPTS,
        timeout=None,
        wait_initial=FIRST_PAUSE_SECONDS,
        wait_max=LONGEST_PAUSE_SECONDS,
        wait_jitter=JITTER_SECONDS,
    ):
        with attempt:
            return _token(_post(f"{url.rstrip('/')}/token/refresh", token, key))
    raise AssertionError("unreachable")


def _check(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise PartnerError(f"Expected an https URL of the partner, got {url!r}. Set EXAMPLE_PARTNER_URL.")


def _pause(error: Exception) -> bool | float:
    """Return True or False to retry the request or not, or the seconds to wait before the retry."""
    if not isinstance(error, PartnerUnavailable):
        return False
    if error.retry_after is None:
        return True
    return error.retry_after <= RETRY_AFTER_LIMIT_SECONDS and max(error.retry_after, 0.001)


def _post(url: str, token: str, key: str) -> bytes:
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key}
    try:
        request = Request(url, b"", headers)  # noqa: S310  (`_check()` allows two schemes)
        with build_opener(_NoRedirects).open(request, timeout=TIMEOUT_SECONDS) as answer:
            return _body(answer)
    except HTTPError as error:
        with error:
            raise _refusal(error.code, error.headers.get("Retry-After")) from None
    except (OSError, HTTPException) as error:
        raise PartnerUnavailable(f"The partner did not respond: {str(error) or type(error).__name__}.") from None


def _body(answer: IO[bytes]) -> bytes:
    body = answer.read(MAX_RESPONSE_BYTES + 1)
    if len(body) > MAX_RESPONSE_BYTES:
        raise PartnerError(f"Expected a response of at most {MAX_RESPONSE_BYTES} bytes, got a longer one.")
    return body


def _refusal(status: int, retry_after: str | None) -> PartnerError:
    if status == 429 or status >= 500:
        wait = _seconds(retry_after)
        asked = f", and asks for {wait:.0f} seconds" if wait else ""
        return PartnerUnavailable(f"The partner responded with {status}{asked}.", wait)
    if status == 401:
        return PartnerError(
            "The partner responded with 401: it rejects the token. Run save_partner_token --replace."
        )
    return PartnerError(f"The partner responded with {status}.")


def _seconds(retry_after: str | None) -> float | None:
    """Parse a Retry-After header, which has seconds or a date; return None if it is absent or invalid."""
    if retry_after is None:
        return None
    if re.fullmatch("[0-9]{1,9}", retry_after.strip()):
        return float(retry_after)
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _token(body: bytes) -> str:
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    token = answer.get("token") if isinstance(answer, dict) else None
    if not isinstance(token, str) or not is_token(token):
        raise PartnerError('Expected a response such as {"token": "..."}, got another one.')
    return token
