"""Deliver a scheduler job to its HTTP target, as Cloud Scheduler does, and return the result."""

from __future__ import annotations

import contextlib
import http.client
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit, urlunsplit

from google.cloud import scheduler_v1
from google.rpc import status_pb2

from cloudrun_jobs.emulator import names
from cloudrun_jobs.emulator.closed_world import is_loopback
from cloudrun_jobs.emulator.errors import ServiceError
from cloudrun_jobs.emulator.scheduler.validation import is_english_like
from cloudrun_jobs.emulator.web import Request, Response

if TYPE_CHECKING:
    from datetime import datetime

    from cloudrun_jobs.emulator.clock import Clock
    from cloudrun_jobs.emulator.tokens import Tokens

RUN_API_HOST = "run.googleapis.com"
METHODS_WITH_BODY = ("POST", "PUT", "PATCH")
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
    """Sends requests to the emulator's Cloud Run, to registered handlers and to this machine only."""

    clock: Clock
    tokens: Tokens
    cloud_run: Handler
    issuer: str = ""
    handlers: dict[str, Handler] = field(default_factory=dict)
    _open: set[http.client.HTTPConnection] = field(default_factory=set)

    def deliver(self, job: scheduler_v1.Job, scheduled: datetime | None) -> Result:
        target = job.http_target
        url = urlsplit(target.uri)
        headers = self._headers(job, scheduled)
        verb = scheduler_v1.HttpMethod(target.http_method).name
        request = Request.from_url(verb, target.uri, headers, _body(target))
        if target.uri in self.handlers:
            return Result.of(self.handlers[target.uri](request).status)
        if _is_cloud_run(url.hostname or ""):
            return Result.of(self.cloud_run(request).status)
        if not is_loopback(url.hostname or ""):
            debug = f"The emulator delivers only to this machine and to {RUN_API_HOST}, not to {url.hostname}."
            return Result(0, "PERMISSION_DENIED", debug)
        deadline = self.clock.real_seconds(job.attempt_deadline.total_seconds())
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        connection = kind(url.netloc, timeout=deadline)
        self._open.add(connection)
        try:
            return _send(connection, url, request, headers)
        finally:
            self._open.discard(connection)
            connection.close()

    def close(self) -> None:
        """Abort the deliveries that wait for a response."""
        for connection in list(self._open):
            with contextlib.suppress(OSError, AttributeError):
                # Closing alone would not wake up the reading thread.
                connection.sock.shutdown(socket.SHUT_RDWR)

    def _headers(self, job: scheduler_v1.Job, scheduled: datetime | None) -> dict[str, str]:
        target = job.http_target
        headers = {name: value for name, value in target.headers.items() if name.lower() != "content-length"}
        if _body(target):
            headers.setdefault("Content-Type", "application/octet-stream")
        headers["User-Agent"] = "Google-Cloud-Scheduler"
        headers["X-CloudScheduler"] = "true"
        headers["X-CloudScheduler-JobName"] = names.short(job.name)
        # By the API's definition, English-like schedules have no schedule time.
        if scheduled is not None and not is_english_like(job):
            headers["X-CloudScheduler-ScheduleTime"] = scheduled.isoformat().replace("+00:00", "Z")
        headers.update(self._authorization(target))
        return headers

    def _authorization(self, target: scheduler_v1.HttpTarget) -> dict[str, str]:
        if target.oauth_token.service_account_email:
            token = self.tokens.access_token(target.oauth_token.service_account_email)
        elif target.oidc_token.service_account_email:
            audience = target.oidc_token.audience or target.uri
            token = self.tokens.id_token(target.oidc_token.service_account_email, audience, self.issuer)
        else:
            return {}
        return {"Authorization": f"Bearer {token}"}


def _body(target: scheduler_v1.HttpTarget) -> bytes:
    return bytes(target.body) if scheduler_v1.HttpMethod(target.http_method).name in METHODS_WITH_BODY else b""


def _send(
    connection: http.client.HTTPConnection, url: SplitResult, request: Request, headers: dict[str, str]
) -> Result:
    try:
        path = urlunsplit(("", "", url.path or "/", url.query, ""))
        connection.request(request.verb, path, request.body or None, headers)
        response = connection.getresponse()
        response.read()
        return Result.of(response.status)
    except TimeoutError:
        return Result(0, "DEADLINE_EXCEEDED", "URL_TIMEOUT. The attempt deadline was exceeded.")
    except (OSError, http.client.HTTPException) as error:
        return Result(0, "UNAVAILABLE", f"URL_UNREACHABLE. {error}")


def _is_cloud_run(host: str) -> bool:
    return host == RUN_API_HOST or host.endswith(f"-{RUN_API_HOST}")
