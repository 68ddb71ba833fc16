"""A proxy for gcloud: the emulator's services, and stand-ins for the services that it does not have."""

from __future__ import annotations

import http.client
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

# The hosts and paths of Cloud SQL and Workload Identity Federation, whose operations are done at once.
STAND_INS = re.compile(r"//sqladmin\.|/workloadIdentityPools")


class Handler(BaseHTTPRequestHandler):
    """Forwards a request to the emulator, or answers it as a stand-in."""

    protocol_version = "HTTP/1.1"
    emulator: str
    written: list[tuple[str, str, Any]]

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if STAND_INS.search(self.path):
            self.reply(200, json.dumps(self.stand_in(json.loads(body or b"{}"))).encode())
            return
        connection = http.client.HTTPConnection(self.emulator, timeout=60)
        connection.request(self.command, self.path, body, dict(self.headers.items()))
        response = connection.getresponse()
        self.reply(response.status, response.read())
        connection.close()

    def stand_in(self, body: Any) -> dict[str, Any]:
        """Return a resource, or an operation that is done."""
        path = urlsplit(self.path).path
        if self.command != "GET":
            self.written.append((self.command, path, body))
        name = path.strip("/")
        done = {"name": f"{name}/operations/1", "done": True, "status": "DONE", "response": {}}
        return {**done, "settings": {}}

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - names of the base class

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Log nothing."""


@contextmanager
def proxy(emulator: str, written: list[tuple[str, str, Any]]) -> Iterator[str]:
    """Serve until the end of the block; yield the address. Writes to stand-ins are noted in `written`."""
    handler = type("ProxyHandler", (Handler,), {"emulator": emulator.removeprefix("http://"), "written": written})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
