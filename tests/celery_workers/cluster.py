"""Celery workers as processes, their queues, and the journal that the jobs write."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, cast
from uuid import uuid4

from redis import Redis

from cloudrun_jobs.models import JobRun, Status, Trigger
from cloudrun_jobs.models.functions import Now
from tests.celery_workers.project.celery_app import app
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60  # Longer than a worker takes on any machine.
numbers = count(1)


class Entry(NamedTuple):
    """A line of the journal."""

    task: str  # The run's id, with the index of the task.
    pid: int
    what: str


@dataclass
class Worker:
    """A worker process and those of its pool."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        os.kill(self.process.pid, number)

    def stop(self) -> float:
        """Stop the worker as Cloud Run does; return how many seconds it took."""
        started = time.monotonic()
        self.kill(signal.SIGTERM)
        self.process.wait(30)
        return time.monotonic() - started

    def text(self) -> str:
        return self.log.read_text()

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.text()
        return " ready." in self.text()


@dataclass
class Cluster:
    """The workers of a test module, a broker and a database."""

    broker: str
    folder: Path
    given: dict[str, Any]
    workers: list[Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client = Redis.from_url(self.broker)

    def launch(self, queue: str, *, pool: str = "prefork", concurrency: int = 2, **variables: str) -> Worker:
        """Start a worker of a queue. Its start takes a second or two: see `ready()`."""
        name = f"w{next(numbers)}@test"
        log = self.folder / f"{name}.log"
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "DJANGO_SETTINGS_MODULE": "tests.celery_workers.project.settings",
            "CELERY_TEST_SETTINGS": json.dumps(self.given),
            "CELERY_TEST_BROKER": self.broker,
            "JOURNAL": str(self.journal),
            "REMAP_SIGTERM": "SIGQUIT",
            "C_FORCE_ROOT": "1",
            **variables,
        }
        options = [f"--pool={pool}", f"--concurrency={concurrency}", f"--queues={queue}", f"--hostname={name}"]
        quiet = ["--without-gossip", "--without-mingle", "--loglevel=INFO"]
        command = [sys.executable, "-m", "celery", "-A", "tests.celery_workers.project.celery_app", "worker"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, *options, *quiet], env=environment, cwd=ROOT, stdout=output, stderr=output
            )
        worker = Worker(name, process, log)
        self.workers.append(worker)
        return worker

    def start(self, queue: str, **options: Any) -> Worker:
        worker = self.launch(queue, **options)
        wait_for(worker.is_ready, START_SECONDS)
        return worker

    def add_queue(self, worker: Worker, queue: str) -> None:
        """Have a worker consume from another queue too."""
        app.control.add_consumer(queue, destination=[worker.name], reply=True, timeout=START_SECONDS, limit=1)

    def close(self) -> None:
        for worker in self.workers:
            with suppress(ProcessLookupError):
                worker.kill(signal.SIGCONT)
                worker.kill()
            worker.process.wait(30)
        self.client.close()

    @property
    def journal(self) -> Path:
        return self.folder / "journal"

    def entries(self, run: JobRun | str) -> list[Entry]:
        """Return what the attempts of a run have written, in order."""
        run_id = str(run.pk) if isinstance(run, JobRun) else run
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        entries = [Entry(task, int(pid), what) for task, pid, what in (line.split(" ", 2) for line in lines)]
        return [entry for entry in entries if entry.task.startswith(run_id)]

    def events(self, run: JobRun | str) -> list[str]:
        return [entry.what for entry in self.entries(run)]

    def begun(self, run: JobRun | str, times: int = 1) -> Entry:
        """Wait until this attempt of the run has begun; return its entry."""
        return cast("Entry", wait_for(lambda: self._begun(run, times)))

    def _begun(self, run: JobRun | str, times: int) -> Entry | None:
        begun = [entry for entry in self.entries(run) if entry.what == "begin"]
        return begun[times - 1] if len(begun) >= times else None

    def run(self, queue: str, *argv: str) -> JobRun:
        """Record a run of the job, and send it to the queue."""
        run = sent_run(argv=["step", *argv], queue=queue)
        self.send(queue, str(run.pk), str(run.pk))
        return run

    def send(self, queue: str, task_id: str, *args: Any, **kwargs: Any) -> None:
        """Send a message by hand."""
        app.send_task("cloudrun_jobs.run", args, kwargs, task_id=task_id, queue=queue)

    def is_idle(self, queue: str) -> bool:
        """Return True if the broker keeps no message of the queue, waiting or unacknowledged."""
        unacked = [value for value in self.client.hvals("unacked") if f'"{queue}"'.encode() in value]
        return not self.client.llen(queue) and not unacked


def sent_run(**values: Any) -> JobRun:
    """Insert the record of a run whose message is still to come."""
    values = {"command": "step", "argv": ["step"], "environment": "production", "sent_at": Now(), **values}
    return JobRun.objects.create(pk=uuid4(), status=Status.SENT, trigger=Trigger.DELAY, **values)


def ended(run: JobRun, seconds: float = 30) -> JobRun:
    """Wait until the run has ended; return its record."""
    runs = JobRun.objects.filter(pk=run.pk, finished_at__isnull=False)
    return cast("JobRun", wait_for(runs.first, seconds))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
