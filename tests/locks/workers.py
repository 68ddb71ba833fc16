"""Jobs in processes of their own, as Cloud Run would start them, and the journal they leave."""

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
from typing import Any
from uuid import uuid4

from django.db import connections

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60  # Longer than anything takes, on any machine.


def until(condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
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
    journal: Journal
    started: float = field(default_factory=time.monotonic)

    @property
    def entries(self) -> list[dict[str, Any]]:
        return [entry for entry in self.journal.entries() if entry["pid"] == self.process.pid]

    def saw(self, what: str) -> dict[str, Any] | None:
        return next((entry for entry in self.entries if entry["what"] == what), None)

    def works(self) -> dict[str, Any]:
        """Wait until it holds its locks."""
        return until(lambda: self.saw("begin") or self._died())

    def _died(self) -> None:
        assert self.process.poll() is None, self.process.communicate()

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def ends(self) -> tuple[int, str]:
        """Wait for its end; return its status, and what it said."""
        out, err = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, out + err


@dataclass
class Journal:
    """What the workers did, in the order in which they did it."""

    path: Path
    locks: dict[str, Any]
    databases: dict[str, Any]
    workers: list[Worker] = field(default_factory=list)
    # An execution is done once: servers outlive a test, so the next one's have other names.
    prefix: str = field(default_factory=lambda: uuid4().hex[:8])

    def start_another(self, *argv: str, **options: Any) -> Worker:
        """Start an execution that was not there before."""
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
        """Start a task, without waiting for anything."""
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.locks.project.settings",
            "PYTHONPATH": str(ROOT),
            "WORKER_SETTINGS": json.dumps({"DATABASES": self.databases, "LOCKS": self.locks}),
            "WORKER_JOURNAL": str(self.path),
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

    def enough(self) -> None:
        """Tell those that work in small steps to come to an end."""
        Path(f"{self.path}.enough").touch()

    def entries(self) -> list[dict[str, Any]]:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [json.loads(line) for line in lines]

    def check(self, parallelism: int = 1) -> None:
        """See that the history keeps the promise: never more at once than allowed, and tokens that only grow."""
        entries = self.entries()
        assert most_at_once(entries) <= parallelism, entries
        begun = [entry["token"] for entry in entries if entry["what"] == "begin"]
        if parallelism == 1:
            assert begun == sorted(set(begun)), entries

    def stop(self) -> None:
        """End what still runs, killed or stopped as it may be."""
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.kill()
            worker.process.communicate()


def most_at_once(entries: list[dict[str, Any]]) -> int:
    """Return how many processes wrote between each other's first and last line."""
    pids = {entry["pid"] for entry in entries}
    times = {pid: [entry["at"] for entry in entries if entry["pid"] == pid] for pid in pids}
    return max(
        (sum(min(t) <= moment <= max(t) for t in times.values()) for t0 in times.values() for moment in t0),
        default=0,
    )


def database_settings(alias: str) -> dict[str, Any]:
    """Return what a worker needs to reach one of the test run's databases, as its default."""
    known = connections.settings[alias]
    keys = ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS")
    return {key: known[key] for key in keys if key in known}
