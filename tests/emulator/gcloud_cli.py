"""Run the real gcloud, with an emulator as its HTTP proxy."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

REGION, PROJECT = "europe-west4", "acme"
NEEDS_GCLOUD = pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed")
SERVER = Path(__file__).with_name("gcloud_server.py")
# The first lines are a shell script too: the path of an interpreter in `#!` must not contain a space.
CLIENT = """#!/bin/sh
'''exec' "{python}" -IS "$0" "$@"
' '''
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect({address!r})
    socket.send_fds(connection, [b"x"], [0, 1, 2])
    connection.sendall(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode())
    connection.shutdown(socket.SHUT_WR)
    code = connection.recv(1)
sys.exit(code[0] if code else "gcloud was killed")
"""


@cache
def program() -> str:
    """Return the path of gcloud: of a client of `gcloud_server.py`, if gcloud brings its own Python."""
    gcloud = shutil.which("gcloud")
    assert gcloud is not None
    root = Path(gcloud).resolve().parents[1]
    python = root / "platform" / "bundledpythonunix" / "bin" / "python3"
    return preloaded(python, root / "lib") if python.exists() else gcloud


def preloaded(python: Path, library: Path) -> str:
    """Start the server, which ends with this process, and return the path of its client."""
    stack = ExitStack()
    atexit.register(stack.close)
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gcloud")))
    address, client = str(directory / "socket"), directory / "gcloud"
    client.write_text(CLIENT.format(python=sys.executable, address=address))
    client.chmod(0o755)
    command = [str(python), "-S", str(SERVER), str(library), address]
    environment = {"PATH": os.environ["PATH"], "CLOUDSDK_CONFIG": str(directory / "config")}
    # Standard input is closed at the end of the `with` block, which ends the server.
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    server = stack.enter_context(subprocess.Popen(command, env=environment, **pipes))  # type: ignore[call-overload]
    assert server.stdout.readline() == b"ready\n"
    return str(client)


@dataclass
class Gcloud:
    """Calls gcloud with a separate configuration."""

    http: str
    directory: Path
    token: str = "fake"

    def __call__(self, *args: str, succeeds: bool = True) -> Any:
        """Run gcloud and return its JSON output; if `succeeds` is false, return stderr."""
        done = subprocess.run(
            [program(), "--format=json", *args], capture_output=True, text=True, timeout=90, env=self.environment()
        )
        assert (done.returncode == 0) is succeeds, done.stderr
        if not succeeds:
            return done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None

    def environment(self) -> dict[str, str]:
        """Return the environment for gcloud."""
        port = self.http.rpartition(":")[2]
        settings = {
            "CLOUDSDK_CONFIG": str(self.directory),
            "CLOUDSDK_AUTH_ACCESS_TOKEN": self.token,
            "CLOUDSDK_CORE_PROJECT": PROJECT,
            "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "1",
            "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "1",
            "CLOUDSDK_CORE_SHOULD_PROMPT_TO_ENABLE_API": "0",
            "CLOUDSDK_RUN_REGION": REGION,
            # Regional calls prefix the host with the region, so only a proxy can receive them.
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_RUN": "http://run.googleapis.com/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDSCHEDULER": "http://cloudscheduler.googleapis.com/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDTASKS": "http://cloudtasks.googleapis.com/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_LOGGING": "http://logging.googleapis.com/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER": "http://secretmanager.googleapis.com/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_MONITORING": "http://monitoring.googleapis.com/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_SERVICEUSAGE": "http://serviceusage.googleapis.com/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDRESOURCEMANAGER": "http://cloudresourcemanager.googleapis.com/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_IAM": "http://iam.googleapis.com/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_ARTIFACTREGISTRY": "http://artifactregistry.googleapis.com/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_CONTAINERANALYSIS": "http://containeranalysis.googleapis.com/",
            "CLOUDSDK_PROXY_TYPE": "http_no_tunnel",
            "CLOUDSDK_PROXY_ADDRESS": "127.0.0.1",
            "CLOUDSDK_PROXY_PORT": port,
        }
        keep = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
        path = os.pathsep.join((str(Path(program()).parent), os.environ["PATH"]))
        return {**keep, "PATH": path, **settings}
