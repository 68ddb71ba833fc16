"""Gunicorn with eight threads, as in the image, that serves the HTTP API."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.servers.process import free_port
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
SETTINGS, VARIABLE = "tests.http_api.live_settings", "TESTS_LIVE_SETTINGS"
APPLICATION = "django.core.wsgi:get_wsgi_application()"


@contextmanager
def serve(**settings: Any) -> Iterator[str]:
    """Start the server with these settings; yield the address."""
    port = free_port()
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": SETTINGS, VARIABLE: json.dumps(settings)}
    command = [sys.executable, "-m", "gunicorn", "--threads=8", f"--bind=127.0.0.1:{port}", APPLICATION]
    with subprocess.Popen([*command, "--log-level=warning"], cwd=ROOT, env=env) as process:
        try:
            wait_for(lambda: _listens(port, process))
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _listens(port: int, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "The server has ended."
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0
