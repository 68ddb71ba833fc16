"""Answer GET on $PORT from a Celery worker: a Cloud Run service must listen, and its startup probe waits for it.

For `celery worker --include=example.health_page`. The port opens when the worker is connected to its broker.
"""

from __future__ import annotations

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from celery.signals import worker_ready


class HealthPage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ok\n")

    def log_message(self, *args: Any) -> None:
        """Log nothing: a probe comes every few seconds."""


def serve(**kwargs: Any) -> None:
    server = ThreadingHTTPServer(("", int(os.environ.get("PORT", "8080"))), HealthPage)
    Thread(target=server.serve_forever, daemon=True).start()


worker_ready.connect(serve)
