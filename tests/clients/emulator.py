"""Start an emulator in its own process and connect clients to it.

Importing this module needs only the standard library.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from google.auth.credentials import Credentials

T = TypeVar("T")
PROJECT, REGION = "acme", "europe-west4"
PARENT = f"projects/{PROJECT}/locations/{REGION}"
TIMEOUT = 30.0  # seconds


@dataclass(frozen=True)
class Addresses:
    grpc: str  # host:port
    http: str  # http://host:port


@contextlib.contextmanager
def emulator(*options: str) -> Iterator[Addresses]:
    """Run an emulator in its own process, with the interpreter that this program got as its argument."""
    command = [
        sys.argv[1],
        "-m",
        "cloudrun_jobs.emulator",
        "--port",
        "0",
        "--grpc-port",
        "0",
        "--json",
        "--grace",
        "1",
    ]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Addresses(**json.loads(process.stdout.readline()))
        finally:
            process.terminate()


@contextlib.contextmanager
def project(files: dict[str, str]) -> Iterator[Path]:
    """Yield a directory with these files, whose `python` is that of this program."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / ".venv").symlink_to(sys.prefix)
        for path, text in files.items():
            (directory / path).write_text(text)
        yield directory


def anonymous() -> Credentials:
    from google.auth.credentials import AnonymousCredentials

    return AnonymousCredentials()


@contextlib.contextmanager
def grpc_clients(address: str) -> Iterator[None]:
    """Connect every gRPC client that is created here to the emulator, without credentials."""
    import grpc
    from google.api_core import grpc_helpers, grpc_helpers_async

    def channel(*_: Any, options: Any = None, **__: Any) -> Any:
        return grpc.insecure_channel(address, options)

    def async_channel(*_: Any, options: Any = None, **__: Any) -> Any:
        return grpc.aio.insecure_channel(address, options)

    with (
        mock.patch("google.auth.default", return_value=(anonymous(), PROJECT)),
        mock.patch.object(grpc_helpers, "create_channel", channel),
        mock.patch.object(grpc_helpers_async, "create_channel", async_channel),
    ):
        yield


@contextlib.contextmanager
def google_hosts(address: str) -> Iterator[None]:
    """Resolve the hosts of Google's APIs to the emulator, as entries in /etc/hosts would, for HTTP without TLS."""
    host, port = address.removeprefix("http://").split(":")
    getaddrinfo, connect = socket.getaddrinfo, socket.socket.connect

    def resolve(name: Any, *args: Any, **kwargs: Any) -> Any:
        if str(name).endswith(".googleapis.com"):
            return getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return getaddrinfo(name, *args, **kwargs)

    def connect_resolved(
        self: socket.socket, target: Any
    ) -> None:  # httplib2 resolves a name, then connects to it.
        connect(self, (host, int(port)) if str(target[0]).endswith(".googleapis.com") else target)

    with mock.patch("socket.getaddrinfo", resolve), mock.patch.object(socket.socket, "connect", connect_resolved):
        yield


def eventually(read: Callable[[], T]) -> T:
    """Call `read` until it returns something true, and return that."""
    deadline = time.monotonic() + TIMEOUT
    while not (value := read()):
        assert time.monotonic() < deadline, f"{read} returned {value!r} for {TIMEOUT} seconds"
        time.sleep(0.05)
    return value


async def eventually_async(read: Callable[[], Awaitable[T]]) -> T:
    """Await `read` until it returns something true, and return that."""
    for _ in range(int(TIMEOUT / 0.05)):
        if value := await read():
            return value
        await asyncio.sleep(0.05)
    raise AssertionError(f"{read} returned {value!r} for {TIMEOUT} seconds")


def create_job(job_id: str, container: dict[str, Any], max_retries: int = 0) -> str:
    """Create a job over gRPC, which some clients leave to Terraform or gcloud; return its name."""
    from google.cloud import run_v2

    job = run_v2.Job({"template": {"template": {"containers": [container], "max_retries": max_retries}}})
    return str(run_v2.JobsClient().create_job(parent=PARENT, job=job, job_id=job_id).result().name)


def step(*values: object) -> None:
    """Print what the client did."""
    sys.stdout.write(f"  {' '.join(map(str, values))}\n")
    sys.stdout.flush()


@contextlib.contextmanager
def fails_with(expected: str, error: type[Exception]) -> Iterator[None]:
    """Expect an error of this type with this text."""
    try:
        yield
    except error as raised:
        text = f"{raised} {raised.__cause__}"
    else:
        raise AssertionError(f"expected an error with {expected!r}")
    assert expected in text, f"expected {expected!r} in {text!r}"


@contextlib.contextmanager
def home() -> Iterator[None]:
    """Keep the clients from the files and credentials of this machine, and from their log lines on it."""
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as name, mock.patch.dict(os.environ, {"HOME": name}):
        yield
