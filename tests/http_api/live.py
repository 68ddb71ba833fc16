"""Servers of the HTTP API as processes: gunicorn with eight threads, as in the image, and uvicorn."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.servers.process import free_port
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
SETTINGS, VARIABLE = "tests.http_api.live_settings", "TESTS_LIVE_SETTINGS"
APPLICATION = "django.core.wsgi:get_wsgi_application()"
SERVERS = ("gunicorn", "uvicorn")


@contextmanager
def serve(**settings: Any) -> Iterator[str]:
    """Start the server with these settings; yield the address."""
    port = free_port()
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": SETTINGS, VARIABLE: json.dumps(settings)}
    command = [sys.executable, "-m", "gunicorn", "--threads=8", f"--bind=127.0.0.1:{port}", APPLICATION]
    with subprocess.Popen([*command, "--log-level=warning"], cwd=ROOT, env=env) as process:
        try:
            wait_for(lambda: listens(port, process))
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def start(
    server: str, port: int, database: Mapping[str, Any], *, grace: int, **variables: str
) -> subprocess.Popen[bytes]:
    """Start one of `SERVERS` on `server_settings`; after SIGTERM its requests have `grace` seconds."""
    options = {
        "gunicorn": [
            "--threads=8",
            "--no-control-socket",
            f"--graceful-timeout={grace}",
            f"--bind=127.0.0.1:{port}",
        ],
        "uvicorn": ["--lifespan=off", f"--timeout-graceful-shutdown={grace}", f"--port={port}"],
    }
    application = {"gunicorn": "example.wsgi", "uvicorn": "example.asgi:application"}
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "example_project"),
        "DJANGO_SETTINGS_MODULE": "tests.http_api.server_settings",
        "SERVER_DATABASE": json.dumps(database),
        **variables,
    }
    command = [sys.executable, "-m", server, *options[server], application[server]]
    return subprocess.Popen(command, cwd=ROOT, env=env)


def listens(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Return True if the server accepts connections. It must not have ended."""
    assert process.poll() is None, "The server has ended."
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0
