"""A partner for development and tests: a server on this machine that issues and rotates one token.

    python -m partner.server --port 8600

`POST /token/refresh` with the current token rotates it. From then on, the old token is rejected, except with the
`Idempotency-Key` of the rotation, which returns the same new token again.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any

Answer = tuple[int, dict[str, str], str]  # Status, headers, body.


@dataclass
class Partner:
    """The state of the server, and the responses that are planned for the next requests."""

    url: str = ""
    token: str = field(default_factory=lambda: _new_token())
    #: The tokens that replaced the first one, in order.
    issued: list[str] = field(default_factory=list)
    #: The status codes of the refresh requests, in order.
    answers: list[int] = field(default_factory=list)
    #: The responses to the next requests: status, headers and body; or None, which hangs until `release` is set.
    planned: deque[Answer | None] = field(default_factory=deque)
    #: Set it to continue the requests that hang; later requests do not hang.
    release: Event = field(default_factory=Event)
    _rotations: dict[tuple[str, str], str] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def fail(self, status: int, times: int = 1, body: str = '{"error": "planned"}', **headers: str) -> None:
        """Respond to the next requests with this status. In the names of headers, "_" stands for "-"."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.planned.extend([(status, named, body)] * times)

    def hang(self, times: int = 1) -> None:
        """Make the next requests hang until `release` is set, and then process them as usual."""
        self.planned.extend([None] * times)

    def refresh(self, token: str, key: str) -> Answer:
        plan = self.planned.popleft() if self.planned else (0, {}, "")
        if plan is None:
            self.release.wait()
        elif plan[0]:
            return plan
        with self._lock:
            if token == self.token:
                self.token = self._rotations[token, key] = _new_token()
                self.issued.append(self.token)
            elif (token, key) not in self._rotations or self._rotations[token, key] != self.token:
                return 401, {}, json.dumps({"error": "stale token"})
            return 200, {}, json.dumps({"token": self.token})


def _new_token() -> str:
    return secrets.token_urlsafe(24)


class Handler(BaseHTTPRequestHandler):
    partner: Partner

    def do_POST(self) -> None:
        if self.path != "/token/refresh":
            self._answer(404, {}, '{"error": "no such path"}')
            return
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        status, headers, body = self.partner.refresh(token, self.headers.get("Idempotency-Key", ""))
        self.partner.answers.append(status)
        self._answer(status, headers, body)

    def _answer(self, status: int, headers: dict[str, str], body: str) -> None:
        data = body.encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Type": "application/json"}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Log nothing: tests and a terminal need no access log."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *args: Any) -> None:
        """Ignore clients that disconnect; log other errors."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(*args)


@contextmanager
def serve(port: int = 0) -> Iterator[Partner]:
    """Serve on this machine while the block runs."""
    partner = Partner()
    with Server(("127.0.0.1", port), type("Handler", (Handler,), {"partner": partner})) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        partner.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield partner
        finally:
            partner.release.set()
            server.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description="A partner that issues and rotates one token.")
    parser.add_argument("--port", type=int, default=8600)
    with serve(parser.parse_args().port) as partner:
        sys.stdout.write(f"{partner.url}\nFirst token: {partner.token}\n")
        sys.stdout.flush()
        Event().wait()


if __name__ == "__main__":
    main()
