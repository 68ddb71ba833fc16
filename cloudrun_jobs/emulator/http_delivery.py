"""Deliver HTTP requests for Cloud Scheduler and Cloud Tasks, and return the result."""

from __future__ import annotations

import contextlib
import http.client
import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote, urlsplit, urlunsplit

from google.rpc import status_pb2

from cloudrun_jobs.emulator.closed_world import is_loopback
from cloudrun_jobs.emulator.errors import ServiceError, invalid
from cloudrun_jobs.emulator.events import Delivered, Events
from cloudrun_jobs.emulator.web import Request, Response

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
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
MAX_URL_LENGTH = 2083  # After encoding.
# All other characters of a URL are percent-encoded.
URL_CHARACTERS = "%/:?#[]@!$&'()*+,;=~"
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
HEADER_VALUE = re.compile(r"[\t -~]*")
CONNECT_ROUND = 1.0  # After so many seconds, an attempt to connect ends if the emulator stops.
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
    events: Events
    cloud_run: Handler
    issuer: str = ""
    handlers: dict[str, Handler] = field(default_factory=dict)
    _open: set[socket.socket] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    closed: bool = False

    def deliver(
        self, name: str, target: Any, url: str, headers: Mapping[str, str], deadline: timedelta
    ) -> Result | None:
        """Deliver a request of a Scheduler job or a task, with the faults that are planned.

        `headers` are those of the service. Return None if the emulator stopped meanwhile: there is no result.
        """
        result = self._deliver(target, url, headers, deadline)
        if result is not None:
            self.events.announce(Delivered(name, target.http_method.name, url, result))
        return result

    def _deliver(self, target: Any, url: str, headers: Mapping[str, str], deadline: timedelta) -> Result | None:
        if self.closed:
            return None
        own = {**headers, **self._authorization(target, url)}
        replaced = {name.lower() for name in own}
        all_headers = {
            **{name: value for name, value in forwarded(target.headers).items() if name.lower() not in replaced},
            **own,
        }
        verb, body = target.http_method.name, body_of(target)
        result = self._send(Request.from_url(verb, encoded(url), all_headers, body), url, all_headers, deadline)
        if self.faults.take_double_delivery():
            result = self._send(
                Request.from_url(verb, encoded(url), all_headers, body), url, all_headers, deadline
            )
        if self.closed and not result.status:
            return None
        return LOST_RESPONSE if self.faults.take_lost_response() else result

    def close(self) -> None:
        """Abort the deliveries that wait for a response, and make no others."""
        with self._lock:
            self.closed = True
            for sock in self._open:
                with contextlib.suppress(OSError):
                    # Closing alone would not wake up the reading thread.
                    sock.shutdown(socket.SHUT_RDWR)

    def _send(self, request: Request, url: str, headers: dict[str, str], deadline: timedelta) -> Result:
        parts = urlsplit(encoded(url))
        if url in self.handlers:
            return _handled(self.handlers[url], request)
        if _is_cloud_run(parts.hostname or ""):
            return Result.of(self.cloud_run(request).status_code)
        if not is_loopback(parts.hostname or ""):
            debug = f"The emulator delivers only to this machine and to {RUN_API_HOST}, not to {parts.hostname}."
            return Result(0, "PERMISSION_DENIED", debug)
        try:
            with self._connected(parts, self.clock.real_seconds(deadline.total_seconds())) as connection:
                return _exchange(connection, parts, request, headers)
        except TimeoutError:
            return Result(0, "DEADLINE_EXCEEDED", "URL_TIMEOUT. The attempt deadline was exceeded.")
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: of a header's characters.
            return Result(0, "UNAVAILABLE", f"URL_UNREACHABLE. {error}")

    @contextlib.contextmanager
    def _connected(self, url: SplitResult, seconds: float) -> Iterator[http.client.HTTPConnection]:
        """Connect to the host of a URL. `close` can abort each step."""
        is_https = url.scheme == "https"
        kind = http.client.HTTPSConnection if is_https else http.client.HTTPConnection
        connection = kind(url.hostname or "", url.port)
        sock = self._socket((connection.host, connection.port), seconds)
        if is_https:
            context = ssl.create_default_context()
            sock = context.wrap_socket(sock, server_hostname=url.hostname, do_handshake_on_connect=False)
        with sock, contextlib.closing(connection), self._abortable(sock):
            if isinstance(sock, ssl.SSLSocket):
                sock.do_handshake()
            connection.sock = sock
            yield connection

    def _socket(self, address: tuple[str, int], seconds: float) -> socket.socket:
        """Return a connected socket. A server that is busy may accept no connections for some time."""
        end = time.monotonic() + seconds
        while True:
            remaining = max(end - time.monotonic(), 0.001)
            try:
                sock = socket.create_connection(address, min(remaining, CONNECT_ROUND))
            except TimeoutError:
                if self.closed or remaining <= CONNECT_ROUND:
                    raise
            else:
                sock.settimeout(seconds)
                return sock

    @contextlib.contextmanager
    def _abortable(self, sock: socket.socket) -> Iterator[None]:
        with self._lock:
            if self.closed:
                raise ConnectionAbortedError("The emulator stops.")
            self._open.add(sock)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(sock)

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
    url = encoded(url)
    try:
        parts = urlsplit(url)
        _port = parts.port
    except ValueError:
        return False
    host = parts.hostname or "%"  # No host has encoded characters.
    return parts.scheme in ("http", "https") and "%" not in host and len(url) <= MAX_URL_LENGTH


def encoded(url: str) -> str:
    """Return a URL with the characters percent-encoded that a request cannot have."""
    return quote(url, URL_CHARACTERS)


def check_headers(headers: Mapping[str, str], field_name: str) -> None:
    """Raise INVALID_ARGUMENT for headers that no request can have, or that are too long."""
    if sum(len(name) + len(value) for name, value in headers.items()) > MAX_HEADER_BYTES:
        raise invalid(f"{field_name} must be less than 80KB in total.")
    for name, value in headers.items():
        if not HEADER_NAME.fullmatch(name):
            raise invalid(f"{field_name} has the invalid name {name!r}.")
        if not HEADER_VALUE.fullmatch(value):
            raise invalid(
                f"{field_name} must have values of printable ASCII characters; that of {name!r} has others."
            )


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


def _exchange(
    connection: http.client.HTTPConnection, url: SplitResult, request: Request, headers: dict[str, str]
) -> Result:
    path = urlunsplit(("", "", url.path or "/", url.query, ""))
    connection.request(request.method, path, request.get_data() or None, headers)
    response = connection.getresponse()
    response.read()
    return Result.of(response.status)


def _is_cloud_run(host: str) -> bool:
    return host == RUN_API_HOST or host.endswith(f"-{RUN_API_HOST}")
