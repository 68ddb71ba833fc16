"""The HTTP frontend: serve REST, gcloud's v1 API, the console and the admin API on one port, also as a proxy."""

from __future__ import annotations

import socketserver
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from cloudrun_jobs.emulator.closed_world import is_google, is_loopback
from cloudrun_jobs.emulator.errors import failed_precondition
from cloudrun_jobs.emulator.frontends import http2
from cloudrun_jobs.emulator.frontends.grpc_port import PortInUse
from cloudrun_jobs.emulator.web import Request, Response

if TYPE_CHECKING:
    from cloudrun_jobs.emulator.closed_world import Addresses

MAX_BODY_BYTES = 64 * 1024 * 1024
IDLE_TIMEOUT = 60.0  # seconds


class Application(Protocol):
    def respond(self, request: Request) -> Response: ...


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    application: Application
    addresses: Addresses

    def server_bind(self) -> None:
        # The base class looks up the host's name in the DNS, which can be slow and is not needed.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnected; report every other error, which is a bug of the emulator."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _RequestHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "cloudrun-emulator"
    sys_version = ""
    timeout = IDLE_TIMEOUT
    # A response is written in two parts; Nagle's algorithm would delay the second until the first is acknowledged.
    disable_nagle_algorithm = True
    server: _Server
    raw_requestline: bytes

    def parse_request(self) -> bool:
        """Parse a request, or answer the calls of a client that speaks gRPC."""
        if self.raw_requestline != http2.PREFACE_LINE:
            return super().parse_request()
        error = failed_precondition(
            f"This is the HTTP port of the Cloud Run emulator; its gRPC port is {self.server.addresses.grpc}."
        )
        http2.fail_calls(self.rfile, self.wfile, error.number, error.message)
        self.close_connection = True
        return False

    def do_CONNECT(self) -> None:
        """Refuse to connect to another host: HTTP clients of tasks use the emulator as their proxy."""
        self.close_connection = True
        self._send(_outside(self.path.rpartition(":")[0]))

    def _handle(self) -> None:
        rejection = self._reject_unreadable()
        if rejection is not None:
            self.close_connection = True
            self._send(rejection)
            return
        # Read the body even of a rejected request: closing a connection with unread data can drop the response.
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._send(self._reject_cross_origin() or self.server.application.respond(self._request(body)))

    def _request(self, body: bytes) -> Request:
        return Request.from_url(self.command, self.path, dict(self.headers.items()), body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _handle  # noqa: N815 - names of the base class

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log no requests, so that they do not drown the output of tasks."""

    def _reject_unreadable(self) -> Response | None:
        length = self.headers.get("Content-Length") or "0"
        if self.headers.get("Transfer-Encoding"):
            return _error(411, "Chunked requests are not accepted; send a Content-Length.")
        if not length.isdecimal():
            return _error(400, "Content-Length must be a number.")
        if int(length) > MAX_BODY_BYTES:
            return _error(413, f"The body is longer than {MAX_BODY_BYTES} bytes.")
        return None

    def _reject_cross_origin(self) -> Response | None:
        """Reject cross-origin requests and foreign Host headers: any accepted request can run programs."""
        target = urlsplit(self.path)
        host = target.netloc or self.headers.get("Host", "")
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return _error(400, "The Host header cannot be read.")
        # .test and .localhost are reserved names; a proxy receives requests for googleapis.com.
        if not (is_loopback(name) or name.endswith((".googleapis.com", ".test"))):
            return _outside(name)
        origin = self.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return _error(403, f"The emulator rejects cross-origin requests; the origin is {origin!r}.")
        return None

    def _send(self, response: Response) -> None:
        self.send_response(response.status, response.reason)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)


class HttpFrontend:
    def __init__(self, application: Application, addresses: Addresses) -> None:
        self._application = application
        self._addresses = addresses

    def bind(self, port: int) -> int:
        """Listen on the port, or on a free one if it is 0; return its number."""
        try:
            self._server = _Server(("127.0.0.1", port), _RequestHandler)
        except OSError as error:
            raise PortInUse(port) from error
        self._server.application = self._application
        self._server.addresses = self._addresses
        return int(self._server.server_address[1])

    def serve(self) -> None:
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.05},
            name="emulator-http",
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def close(self) -> None:
        """Release the port without having served."""
        self._server.server_close()


def _outside(host: str) -> Response:
    """Refuse a request for another host, which is most likely that of a task: the emulator is its proxy."""
    reason = f"The Cloud Run emulator does not serve the host {host!r}"
    way_out = f"start the emulator with --allow-host {host}"
    if is_google(host):
        way_out = "connect to the emulator, at CLOUDRUN_EMULATOR_HOST"
    return _error(403, f"{reason}. Tasks reach no other machine: {way_out}.", reason)


def _error(status: int, message: str, reason: str | None = None) -> Response:
    return Response.json({"error": {"code": status, "message": message}}, status, reason)
