"""Deliver HTTP requests for Cloud Scheduler and Cloud Tasks, and return the result."""

from __future__ import annotations

import contextlib
import http.client
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

from google.rpc import status_pb2

from cloudrun_jobs.emulator.closed_world import is_loopback
from cloudrun_jobs.emulator.errors import ServiceError
from cloudrun_jobs.emulator.web import Request, Response

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from cloudrun_jobs.emulator.clock import Clock
    from cloudrun_jobs.emulator.faults import Faults
    from cloudrun_jobs.emulator.tokens import Tokens

logger = logging.getLogger(__name__)
RUN_API_HOST = "run.googleapis.com"
METHODS_WITH_BODY = ("POST", "PUT", "PATCH")
# The services ignore or replace these headers of a target, and all with these prefixes.
IGNORED_HEADERS = ("host", "content-length", "user-agent")
IGNORED_PREFIXES = ("x-google-", "x-appengine-")
MAX_HEADER_BYTES = 80 * 1024
MAX_URL_LENGTH = 2083
# The status code for an HTTP status; all others above 299 are UNKNOWN.
CODE_BY_HTTP_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}

Handler = Callable[[Request], Response]


@dataclass(frozen=True, slots=True)
class Result:
    """The HTTP status of the response, or the reason why there is none."""

    status: int = 0
    code: str = "OK"
    debug: str = ""

    @property
    def acknowledged(self) -> bool:
        return 200 <= self.status <= 299

    @property
    def http_status(self) -> int:
        """The status of the response, or the one that stands for the reason: 504 for a timeout."""
        return self.status or ServiceError(self.code, "").http_status

    def as_status(self) -> status_pb2.Status:
        if self.acknowledged:
            return status_pb2.Status()
        return status_pb2.Status(code=ServiceError(self.code, "").number)

    @classmethod
    def of(cls, status: int) -> Result:
        code = "OK" if 200 <= status <= 299 else CODE_BY_HTTP_STATUS.get(status, "UNKNOWN")
        return cls(status, code, f"URL_CRAWLED. Original HTTP response code number = {status}")


LOST_RESPONSE = Result(0, "UNAVAILABLE", "URL_UNREACHABLE. The response was lost.")


@dataclass(slots=True)
class HttpDelivery:
    """Sends requests to the emulator's Cloud Run, to registered handlers and to this machine only.

    A target is an HttpTarget of Cloud Scheduler or an HttpRequest of Cloud Tasks.
    """

    clock: Clock
    tokens: Tokens
    faults: Faults
    cloud_run: Handler
    issuer: str = ""
    handlers: dict[str, Handler] = field(default_factory=dict)
    _open: set[http.client.HTTPConnection] = field(default_factory=set)

    def deliver(self, target: Any, url: str, headers: Mapping[str, str], deadline: timedelta) -> Result:
        """Deliver a request, with the faults that are planned. `headers` are those of the service."""
        own = {**headers, **self._authorization(target, url)}
        replaced = {name.lower() for name in own}
        all_headers = {
            **{name: value for name, value in forwarded(target.headers).items() if name.lower() not in replaced},
            **own,
        }
        verb, body = target.http_method.name, body_of(target)
        result = self._send(Request.from_url(verb, url, all_headers, body), url, all_headers, deadline)
        if self.faults.take_double_delivery():
            result = self._send(Request.from_url(verb, url, all_headers, body), url, all_headers, deadline)
        return LOST_RESPONSE if self.faults.take_lost_response() else result

    def close(self) -> None:
        """Abort the deliveries that wait for a response."""
        for connection in list(self._open):
            with contextlib.suppress(OSError, AttributeError):
                # Closing alone would not wake up the reading thread.
                connection.sock.shutdown(socket.SHUT_RDWR)

    def _send(self, request: Request, url: str, headers: dict[str, str], deadline: timedelta) -> Result:
        parts = urlsplit(url)
        if url in self.handlers:
            return _handled(self.handlers[url], request)
        if _is_cloud_run(parts.hostname or ""):
            return Result.of(self.cloud_run(request).status_code)
        if not is_loopback(parts.hostname or ""):
            debug = f"The emulator delivers only to this machine and to {RUN_API_HOST}, not to {parts.hostname}."
            return Result(0, "PERMISSION_DENIED", debug)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(
            parts.hostname or "", parts.port, timeout=self.clock.real_seconds(deadline.total_seconds())
        )
        self._open.add(connection)
        try:
            return _send(connection, parts, request, headers)
        finally:
            self._open.discard(connection)
            connection.close()

    def _authorization(self, target: Any, url: str) -> dict[str, str]:
        if target.oauth_token.service_account_email:
            token = self.tokens.access_token(target.oauth_token.service_account_email)
        elif target.oidc_token.service_account_email:
            audience = target.oidc_token.audience or url
            token = self.tokens.id_token(target.oidc_token.service_account_email, audience, self.issuer)
        else:
            return {}
        return {"Authorization": f"Bearer {token}"}


def forwarded(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a target that a delivery has."""
    return {name: value for name, value in headers.items() if not _is_ignored(name.lower())}


def is_http_url(url: str) -> bool:
    """Return True if the URL is one that can be delivered to."""
    try:
        parts = urlsplit(url)
        _port = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and len(url) <= MAX_URL_LENGTH


def body_of(target: Any) -> bytes:
    return bytes(target.body) if target.http_method.name in METHODS_WITH_BODY else b""


def _handled(handler: Handler, request: Request) -> Result:
    """Call a function of a test; an exception, which is logged, is a response of 500."""
    try:
        return Result.of(handler(request).status_code)
    except Exception:
        logger.exception("The function for deliveries to %s failed.", request.url)
        return Result.of(500)


def _is_ignored(name: str) -> bool:
    return name in IGNORED_HEADERS or name.startswith(IGNORED_PREFIXES)


def _send(
    connection: http.client.HTTPConnection, url: SplitResult, request: Request, headers: dict[str, str]
) -> Result:
    try:
        path = urlunsplit(("", "", url.path or "/", url.query, ""))
        connection.request(request.method, path, request.get_data() or None, headers)
        response = connection.getresponse()
        response.read()
        return Result.of(response.status)
    except TimeoutError:
        return Result(0, "DEADLINE_EXCEEDED", "URL_TIMEOUT. The attempt deadline was exceeded.")
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: of a header's characters.
        return Result(0, "UNAVAILABLE", f"URL_UNREACHABLE. {error}")


def _is_cloud_run(host: str) -> bool:
    return host == RUN_API_HOST or host.endswith(f"-{RUN_API_HOST}")
