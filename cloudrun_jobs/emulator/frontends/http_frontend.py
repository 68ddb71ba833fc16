"""The HTTP frontend: serve REST, gcloud's v1 API, the console and the admin API, also as a proxy."""

from __future__ import annotations

import gzip
import io
import socket
import sys
import threading
import zlib
from typing import Any, Protocol
from urllib.parse import urlsplit

from werkzeug.exceptions import (
    BadRequest,
    ClientDisconnected,
    Forbidden,
    HTTPException,
    NotFound,
    RequestEntityTooLarge,
    UnsupportedMediaType,
)
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler
from werkzeug.wsgi import get_input_stream

from cloudrun_jobs.emulator.closed_world import is_google, is_loopback
from cloudrun_jobs.emulator.web import Request, Response, http_failure

MAX_BODY_BYTES = 64 * 1024 * 1024
IDLE_TIMEOUT = 60.0  # seconds


class Application(Protocol):
    def respond(self, request: Request) -> Response: ...


class OtherHost(Forbidden):
    """A request for another host, which is most likely that of a task: the emulator is its proxy."""

    def __init__(self, host: str) -> None:
        # Clients show the status line of a response to CONNECT, not its body.
        self.reason = f"The Cloud Run emulator does not serve the host {host!r}"
        way_out = f"start the emulator with --allow-host {host}"
        if is_google(host):
            way_out = "connect to the emulator, at CLOUDRUN_EMULATOR_HOST"
        super().__init__(f"{self.reason}. Tasks reach no other machine: {way_out}.")


class _Server(ThreadedWSGIServer):
    application: Application

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnected; report every other error, which is a bug of the emulator."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _RequestHandler(WSGIRequestHandler):
    """Parses requests like Werkzeug's server, but keeps connections open, which that does not."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_TIMEOUT
    # A response is written in two parts; Nagle's algorithm would delay the second until the first is acknowledged.
    disable_nagle_algorithm = True
    server: _Server

    def run_wsgi(self) -> None:
        reason = None
        try:
            response = self.server.application.respond(self._request())
        except HTTPException as error:
            response = http_failure(error.code or 500, str(error.description))
            response.headers["Connection"] = "close"  # The rest of the request may be unread.
            reason = getattr(error, "reason", None)
        body = response.get_data()
        response.content_length = len(body)
        self.send_response(response.status_code, reason)
        for name, value in response.headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        return "cloudrun-emulator"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log no requests, so that they do not drown the output of tasks."""

    def log_error(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log no malformed requests."""

    def _request(self) -> Request:
        if self.command == "CONNECT":
            raise OtherHost(self.path.rpartition(":")[0])
        try:
            environ = self.make_environ()
        except ValueError as error:
            raise BadRequest(f"The URL cannot be read: {error}.") from error
        # Read the body even of a rejected request: closing a connection with unread data can drop the response.
        body = _read_body(environ)
        _check_origin(environ)
        environ |= {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        return Request(environ)


class HttpFrontend:
    def __init__(self, application: Application) -> None:
        self._application = application

    def serve(self) -> int:
        """Serve on a free port; return its number."""
        # Given its socket, the server does not look up a name in the DNS, and exits on no error.
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
            self._server = _Server("127.0.0.1", 0, NotFound(), _RequestHandler, fd=listener.fileno())
        self._server.application = self._application
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.05},
            name="emulator-http",
            daemon=True,
        )
        self._thread.start()
        return int(self._server.server_address[1])

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()


def _read_body(environ: dict[str, Any]) -> bytes:
    if not (environ.get("CONTENT_LENGTH") or "0").isdecimal():
        raise BadRequest("Content-Length must be a number.")
    try:
        body: bytes = get_input_stream(environ, max_content_length=MAX_BODY_BYTES).read()
    except ClientDisconnected as error:
        raise BadRequest("The body is incomplete.") from error
    except RequestEntityTooLarge as error:
        raise _too_large() from error
    return _decode(body, environ.get("HTTP_CONTENT_ENCODING", "identity").lower())


def _decode(body: bytes, encoding: str) -> bytes:
    if encoding == "identity":
        return body
    if encoding != "gzip":
        raise UnsupportedMediaType(f"expected the content encoding gzip, got {encoding!r}")
    try:
        with gzip.open(io.BytesIO(body)) as compressed:
            body = compressed.read(MAX_BODY_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise BadRequest(f"The body is not gzip: {error}.") from error
    if len(body) > MAX_BODY_BYTES:
        raise _too_large()
    return body


def _too_large() -> RequestEntityTooLarge:
    return RequestEntityTooLarge(f"The body is longer than {MAX_BODY_BYTES} bytes.")


def _check_origin(environ: dict[str, Any]) -> None:
    """Reject cross-origin requests and foreign Host headers: any accepted request can run programs."""
    host = environ.get("HTTP_HOST", "")
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError as error:
        raise BadRequest("The Host header cannot be read.") from error
    # .test and .localhost are reserved names; a proxy receives requests for googleapis.com.
    if not (is_loopback(name) or name.endswith((".googleapis.com", ".test"))):
        raise OtherHost(name)
    origin = environ.get("HTTP_ORIGIN")
    if origin is not None and origin.partition("://")[2] != host:
        raise Forbidden(f"The emulator rejects cross-origin requests; the origin is {origin!r}.")
