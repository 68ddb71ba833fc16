"""The databases that store run records, and a simulated container."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from uuid import uuid4

import pytest
from django.db import Error, connections
from pytest_django import Settings

from cloudrun_jobs import CloudRunJobs
from cloudrun_jobs.environ import CloudRunTask
from cloudrun_jobs.execution.attempt import Attempt
from cloudrun_jobs.execution.claim import AlreadyClaimed, Invocation
from cloudrun_jobs.execution.recording import record_attempt
from cloudrun_jobs.execution.termination import Termination
from cloudrun_jobs.models import JobRun, Trigger
from tests.backends.server import CloudRun, serve
from tests.jobs.management.commands import echo, outcome
from tests.servers.routing import records_in

KINDS = ("postgres", "mariadb", "sqlite")
EXECUTION = "echo-test-x7k2p"
OTHER = "echo-test-q4w8z"


@pytest.fixture(autouse=True)
def _records() -> None:
    """Commit what tests write: threads and other processes read it."""


@pytest.fixture(params=KINDS, autouse=True)
def database(request: pytest.FixtureRequest, settings: Settings, django_db_blocker: Any) -> Iterator[str]:
    """Store the records in each kind of database in turn."""
    yield from store_records(request, settings, django_db_blocker)


def store_records(request: pytest.FixtureRequest, settings: Settings, django_db_blocker: Any) -> Iterator[str]:
    """Store the records in this kind of database, for a module that does not use KINDS."""
    alias: str = request.getfixturevalue(request.param)
    with records_in(alias, settings, django_db_blocker):
        yield alias
        # A test may have left the connection in any state, so the next test gets a new one.
        with suppress(Error):
            connections[alias].close()
        del connections[alias]


#: Makes a test of a module with fewer kinds run with each.
in_every_database = pytest.mark.parametrize("database", KINDS, indirect=True)


@pytest.fixture
def cloud(settings: Settings) -> Iterator[CloudRun]:
    """Dispatch runs to a fake Cloud Run."""
    with serve() as server:
        options = {"endpoint": server.endpoint, "send_deadline": 1, "runs_per_minute": 10_000}
        place = {"PROJECT": "acme", "REGION": "europe-west4"}
        settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "production", **place, "OPTIONS": options}
        yield server


@dataclass
class Container:
    """A simulated container: the variables that Cloud Run sets, and the exit status that it reads."""

    monkeypatch: pytest.MonkeyPatch

    def environment(
        self,
        *,
        run_id: str = "",
        execution: str = EXECUTION,
        index: int = 0,
        attempt: int = 0,
        count: int = 1,
        schedule: str = "",
    ) -> None:
        for name, value in {
            "CLOUD_RUN_EXECUTION": execution,
            "CLOUD_RUN_TASK_INDEX": str(index),
            "CLOUD_RUN_TASK_ATTEMPT": str(attempt),
            "CLOUD_RUN_TASK_COUNT": str(count),
            "CLOUDRUN_JOBS_RUN_ID": run_id,
            "CLOUDRUN_JOBS_SCHEDULE": schedule,
        }.items():
            self.monkeypatch.setenv(name, value)

    def run(self, *argv: str, **variables: Any) -> int:
        """Run `manage.py` with these arguments; return the exit status."""
        self.environment(**variables)
        self.monkeypatch.setattr(sys, "argv", ["manage.py", *argv])
        module = import_module(f"tests.jobs.management.commands.{argv[0]}")
        command: CloudRunJobs = module.Command()
        try:
            command.run_from_argv(["manage.py", argv[0], "--skip-checks", *argv[1:]])
        except SystemExit as leaving:
            return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        except KeyboardInterrupt:
            return 130
        except Exception:  # noqa: BLE001  (as the interpreter ends for any)
            return 1
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # As a new process has it.
        return 0


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch) -> Container:
    return Container(monkeypatch)


def request(command: str = "echo", **values: Any) -> JobRun:
    """Record a run that has not been dispatched."""
    fields = {"argv": [command], "environment": "test", "trigger": Trigger.DELAY, **values}
    return JobRun.objects.create(command=command, **fields)


def begin(
    run: JobRun | None,
    *,
    execution: str = EXECUTION,
    index: int = 0,
    attempt: int = 0,
    count: int = 1,
    command: str = "echo",
) -> AbstractContextManager[Attempt | AlreadyClaimed]:
    """Claim the run and record the outcome of the block; `outcome` has two retries, `echo` none."""
    task = CloudRunTask(
        job=f"{command}-test",
        execution=execution,
        index=index,
        attempt=attempt,
        count=count,
        run_id=str(run.pk) if run else "",
    )
    spec = {"echo": echo.Command, "outcome": outcome.Command}[command]().spec
    start = Invocation(command=command, environment="test", argv=[command], task=task)
    return record_attempt(start, spec, Termination())


def some_id() -> str:
    return str(uuid4())
