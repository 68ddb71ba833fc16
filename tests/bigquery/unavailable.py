"""A server that answers every request with one status, or not at all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar


class Handler(BaseHTTPRequestHandler):
    status: ClassVar[int | None]
    over: ClassVar[threading.Event]
    requests: ClassVar[list[str]]

    def handle_request(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.requests.append(f"{self.command} {self.path}")
        if self.status is None:
            self.over.wait(60)
            return
        body = b'{"error": {"message": "unavailable"}}'
        self.send_response(self.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = handle_request  # noqa: N815  (the names of the base class)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the name of the base class)
        """Write no line for each request."""


@contextmanager
def serving(status: int | None) -> Iterator[tuple[str, list[str]]]:
    """Serve on the loopback interface during the block; yield the URL, and the requests as they come.

    Without a status, requests get no answer.
    """
    over = threading.Event()
    requests: list[str] = []
    handler = type("BoundHandler", (Handler,), {"status": status, "over": over, "requests": requests})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        over.set()
        server.shutdown()
        server.server_close()
