"""An emulated cloud, a database, and the processes that use them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from django.db.models.functions import Now

from cloudrun_jobs import backends
from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.locks.configured import DATABASE
from cloudrun_jobs.models import JobRun, TaskRun
from cloudrun_jobs.runs import reconcile
from tests.emulator.cloud import PLACE, eventually, job
from tests.emulator.fixtures import cloudrun_emulator
from tests.locks.workers import database_settings
from tests.servers import sql
from tests.servers.process import Server
from tests.servers.routing import forget, records_in

__all__ = ["cloudrun_emulator"]

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import django, os, signal
django.setup()
from tests.faults.project.management.commands.work import Command
"""
OPTIONS = {
    "runs_per_minute": 10_000,
    "send_deadline": 5,
    "service_account": "app-jobs@acme.iam.gserviceaccount.com",
}
RECONCILE_AGE = timedelta(minutes=10)


@dataclass
class Scene:
    """The actions and observations of the tests."""

    emulator: Emulator
    database: str
    folder: Path
    environment: dict[str, str]
    senders: list[subprocess.Popen[str]] = field(default_factory=list)

    def deploy(self, tasks: int = 1, at_once: int = 0, **variables: str) -> None:
        """Create the job with a number of tasks, with these variables in its containers."""
        retries, timeout = int(variables.get("RETRIES", "0")), variables.get("TIMEOUT", "600")
        command, env = (sys.executable, "-m", "django"), {**self.environment, **variables}
        declared = job(
            *command, retries=retries, timeout=f"{timeout}s", env=env, task_count=tasks, parallelism=at_once
        )
        self.emulator.clients.jobs.create_job(parent=PLACE, job=declared, job_id="work-production").result()

    def send(self, script: str) -> subprocess.Popen[str]:
        """Run a script in a process in which `Command` is the job."""
        lines = [
            "import django, os, signal",
            "django.setup()",
            "from tests.faults.project.management.commands.work import Command",
        ]
        program = "\n".join([*lines, script])
        environment = {**os.environ, **self.environment}
        pipe = subprocess.PIPE
        sender = subprocess.Popen(
            [sys.executable, "-c", program], env=environment, cwd=ROOT, stdout=pipe, stderr=pipe, text=True
        )
        self.senders.append(sender)
        return sender

    def executions(self) -> list[Any]:
        return list(self.emulator.clients.executions.list_executions(parent=f"{PLACE}/jobs/work-production"))

    def over(self) -> None:
        """Wait until all executions have ended."""
        eventually(lambda: all(execution.completion_time for execution in self.executions()))

    def reconcile(self) -> Counter[str]:
        """Make the records ten minutes older, and reconcile them."""
        past = Now() - RECONCILE_AGE
        JobRun.objects.update(created_at=past)
        JobRun.objects.exclude(sending_until=None).update(sending_until=past)
        JobRun.objects.exclude(sent_at=None).update(sent_at=past)
        JobRun.objects.exclude(started_at=None).update(started_at=past)
        TaskRun.objects.update(heartbeat_at=past)
        return reconcile.reconcile(backends.current())

    def clear(self) -> None:
        """Delete all runs, locks and the journal."""
        forget(self.database)
        (self.folder / "journal").unlink(missing_ok=True)

    def journal(self) -> list[str]:
        """Return a line for each completed unit of work: its number and the execution."""
        return [line for line in self.lines() if line != "over"]

    def lines(self) -> list[str]:
        path = self.folder / "journal"
        return path.read_text().splitlines() if path.exists() else []

    def statuses(self) -> list[str]:
        return sorted(JobRun.objects.values_list("status", flat=True))


@pytest.fixture(autouse=True)
def _records() -> None:
    """Commit what tests write."""


@pytest.fixture
def cloudrun_emulator_options() -> dict[str, Any]:
    """Leave a cancelled task time to record its outcome on a busy machine."""
    return {"grace": 8.0}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Start a server that no other module uses."""
    server = sql.postgres()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def database(postgres: str) -> str:
    return postgres


@pytest.fixture
def scene(
    cloudrun_emulator: Emulator, database: str, tmp_path: Path, settings: Any, django_db_blocker: Any
) -> Iterator[Scene]:
    settings.CLOUDRUN_JOBS = {
        "ENVIRONMENT": "production",
        "PROJECT": "acme",
        "REGION": "europe-west4",
        "OPTIONS": {"endpoint": cloudrun_emulator.grpc, **OPTIONS},
        "LOCKS": {"BACKEND": DATABASE, "OPTIONS": {"using": database}},
    }
    given = {"database": database_settings(database), "endpoint": cloudrun_emulator.grpc}
    environment = {
        "PYTHONPATH": str(ROOT),
        "DJANGO_SETTINGS_MODULE": "tests.faults.project.settings",
        "CRASH_SETTINGS": json.dumps(given),
        "JOURNAL": str(tmp_path / "journal"),
    }
    with records_in(database, settings, django_db_blocker):
        scene = Scene(cloudrun_emulator, database, tmp_path, environment)
        yield scene
        for sender in scene.senders:
            sender.kill()
            sender.communicate()
        connections[database].close()
