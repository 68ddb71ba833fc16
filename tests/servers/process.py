"""A server as a process of the test run: started on a free port, killed, started again, stopped."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

START_SECONDS = 60
PORTS = (15000, 32000)


def free_port() -> int:
    """Return a free port of the loopback interface.

    It is below those that the system gives to outgoing connections: one of them could take the port before the
    server does.
    """
    choice = random.SystemRandom()  # Another than that of the tests, whose workers may have one seed.
    while True:
        port = choice.randint(*PORTS)
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


def need(program: str) -> str:
    """Return the path of a program, or skip the test; in CI a missing server is a failure."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        message = f"{program} is not installed: see tests/servers/install.sh"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


def as_nobody() -> list[str]:
    """Return the prefix with which root starts a server that refuses to run as root.

    The arguments of `subprocess` would fork in Python, which breaks gRPC while it is in use here.
    """
    user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]
    return user if os.geteuid() == 0 else []


def directory() -> Path:
    """Return a new directory that the servers' user may write to."""
    path = Path(tempfile.mkdtemp(prefix="cloudrun_jobs-"))
    if os.geteuid() == 0:
        shutil.chown(path, "nobody", "nogroup")
    return path


def run(*command: str | Path) -> None:
    """Run a server's set-up program to its end."""
    done = subprocess.run([*as_nobody(), *command], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr


class Server:
    """A server process, and the probe that raises until it answers."""

    def __init__(
        self,
        command: Sequence[str | Path],
        home: Path,
        port: int,
        answers: Callable[[], object],
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.command = [str(part) for part in command]
        self.home = home
        self.port = port
        self.stop_signal = stop_signal
        self._answers = answers
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen([*as_nobody(), *self.command], stdout=log, stderr=log, cwd="/")
        deadline = time.monotonic() + START_SECONDS
        while not self._is_up():
            assert self.process.poll() is None, (self.home / "log").read_text()
            assert time.monotonic() < deadline, (self.home / "log").read_text()
            time.sleep(0.02)

    def _is_up(self) -> bool:
        try:
            self._answers()
        except Exception:  # noqa: BLE001  (each driver has errors of its own for a server that is not up yet)
            return False
        return True

    def kill(self) -> None:
        """End it at once, with whatever it has not written."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it in order, and remove its files."""
        self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
        shutil.rmtree(self.home, ignore_errors=True)
