"""Jobs in processes of their own, as Cloud Run starts them, and the history that they write."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from django.db import connections

ROOT = Path(__file__).resolve().parents[2]
WAIT_SECONDS = 60  # Longer than anything takes, on any machine.

T = TypeVar("T")


def until(condition: Callable[[], T | None], seconds: float = WAIT_SECONDS) -> T:
    """Wait until the condition is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{condition} did not come true in {seconds} s"
        time.sleep(0.01)
    return found


@dataclass
class Worker:
    """One attempt of one task."""

    process: subprocess.Popen[str]
    workers: Workers
    started: float = field(default_factory=time.monotonic)

    @property
    def history(self) -> list[dict[str, Any]]:
        return [entry for entry in self.workers.history() if entry["pid"] == self.process.pid]

    def entry(self, what: str) -> dict[str, Any] | None:
        return next((entry for entry in self.history if entry["what"] == what), None)

    def wait_until_working(self) -> dict[str, Any]:
        """Wait until the job holds its locks; return its first entry."""
        return until(self._begun)

    def _begun(self) -> dict[str, Any] | None:
        if begun := self.entry("begin"):
            return begun
        assert self.process.poll() is None, self.process.communicate()
        return None

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def wait(self) -> tuple[int, str]:
        """Wait for the end of the process; return its status and output."""
        out, err = self.process.communicate(timeout=WAIT_SECONDS)
        return self.process.returncode, out + err


@dataclass
class Workers:
    """Workers that share a lock server and a database, and the history of their work."""

    path: Path
    locks: dict[str, Any]
    databases: dict[str, Any]
    routers: Sequence[str] = ()
    workers: list[Worker] = field(default_factory=list)
    # Servers outlive a test, so executions of each test have names of their own.
    prefix: str = field(default_factory=lambda: uuid4().hex[:8])

    def start_duplicate(self, *argv: str, **options: Any) -> Worker:
        """Start another execution of the same run."""
        return self.start(*argv, execution=f"another-{len(self.workers)}", **options)

    def start(
        self,
        *argv: str,
        execution: str = "a",
        index: int = 0,
        attempt: int = 0,
        count: int = 1,
        ahead: float = 0,
        inside: Sequence[str] = (),
    ) -> Worker:
        """Start a task, without waiting."""
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.locks.project.settings",
            "PYTHONPATH": str(ROOT),
            "WORKER_SETTINGS": json.dumps(
                {"DATABASES": self.databases, "DATABASE_ROUTERS": list(self.routers), "LOCKS": self.locks}
            ),
            "WORKER_HISTORY": str(self.path),
            "WORKER_CLOCK_AHEAD": str(ahead),
        }
        if execution:
            environment |= {
                "CLOUD_RUN_EXECUTION": f"{self.prefix}-{execution}",
                "CLOUD_RUN_TASK_INDEX": str(index),
                "CLOUD_RUN_TASK_ATTEMPT": str(attempt),
                "CLOUD_RUN_TASK_COUNT": str(count),
            }
        command = [*inside, sys.executable, "-m", "django", *argv]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)
        self.workers.append(Worker(process, self))
        return self.workers[-1]

    def finish(self) -> None:
        """End the jobs that work in small steps."""
        Path(f"{self.path}.finish").touch()

    def history(self) -> list[dict[str, Any]]:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [json.loads(line) for line in lines]

    def check_history(self, parallelism: int = 1) -> None:
        """Check that no more jobs worked at once than allowed, and that tokens only grew."""
        entries = self.history()
        assert most_at_once(entries) <= parallelism, entries
        begun = [entry["token"] for entry in entries if entry["what"] == "begin"]
        if parallelism == 1:
            assert begun == sorted(set(begun)), entries

    def stop(self) -> None:
        """Kill the workers that still run, stopped ones too."""
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.kill()
            worker.process.communicate()


def most_at_once(entries: list[dict[str, Any]]) -> int:
    """Return how many processes worked at once, from the first to the last entry of each."""
    pids = {entry["pid"] for entry in entries}
    times = {pid: [entry["at"] for entry in entries if entry["pid"] == pid] for pid in pids}
    return max(
        (sum(min(t) <= moment <= max(t) for t in times.values()) for t0 in times.values() for moment in t0),
        default=0,
    )


def database_settings(alias: str) -> dict[str, Any]:
    """Return the settings by which a worker reaches one of the test run's databases."""
    known = connections.settings[alias]
    keys = ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS")
    return {key: known[key] for key in keys if key in known}
