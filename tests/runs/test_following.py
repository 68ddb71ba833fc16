"""Handles on runs of other threads and processes, and runs whose process died."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Timer
from threading import enumerate as threads
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connections, transaction
from pytest_django import Settings

from cloudrun_jobs import JobCancelled, JobFailed, backoff, conf
from cloudrun_jobs.backends import current, inline
from cloudrun_jobs.backends.inline import InlineBackend
from cloudrun_jobs.models import JobRun, Status, TaskRun
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.runs import reconcile
from cloudrun_jobs.signals import run_reconciled
from tests.backends.server import CloudRun
from tests.jobs.management.commands import echo
from tests.locks.workers import database_settings
from tests.runs.conftest import request

ROOT = Path(__file__).resolve().parents[2]
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)

# A process that runs a job for ever.
WORKER = """
import time
import django
django.setup()
from tests.jobs.management.commands.echo import Command
Command.run = lambda self, **options: print("works", flush=True) or time.sleep(600)
Command().delay(partner=7, idempotency_key="once")
"""


@pytest.fixture
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the grace period for silent runs."""
    monkeypatch.setattr(inline, "LIVENESS_GRACE_SECONDS", 0.2)
    monkeypatch.setattr(reconcile, "LIVENESS_GRACE_SECONDS", 0.2)
    monkeypatch.setattr(reconcile, "LIVENESS_POLL_INTERVAL", 0.05)


@pytest.fixture
def worker(database: str) -> Iterator[Callable[[], None]]:
    """Run a job in another thread until the returned function is called."""
    proceed, started = Event(), Event()

    def run(self: echo.Command, **options: Any) -> str:
        started.set()
        proceed.wait(60)
        return "of the other thread"

    def delay() -> None:
        try:
            echo.Command().delay(partner=7, idempotency_key="once")
        finally:
            connections[database].close()  # This thread's.

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as pool:
        patch.setattr(echo.Command, "run", run)
        pool.submit(delay)
        assert started.wait(60)
        yield proceed.set
        proceed.set()
    # They query the database, which is closed after the test.
    for thread in threads():
        if thread.name == "cloudrun_jobs callbacks":
            thread.join(30)


def test_a_repeated_key_follows_the_run(worker: Callable[[], None]) -> None:
    """The second handle of a key waits for the first run and has its result."""
    operation, called = echo.Command().delay(partner=7, idempotency_key="once"), Event()
    operation.add_done_callback(lambda ended: called.set())
    assert (operation.done(), operation.running(), operation.cancelled()) == (False, True, False)
    worker()

    assert operation.result(timeout=30) == "of the other thread"
    assert operation.exception() is None
    assert called.wait(30)


def test_result_times_out(worker: Callable[[], None]) -> None:
    """result() and exception() raise after their timeout."""
    operation = echo.Command().delay(partner=7, idempotency_key="once")

    with pytest.raises(TimeoutError, match=r"Run .* of echo-test has not ended within 0.1 seconds"):
        operation.result(timeout=0.1)
    with pytest.raises(TimeoutError):
        operation.exception(timeout=0)


def test_a_running_thread_is_not_cancelled(worker: Callable[[], None]) -> None:
    """cancel() returns False for a run that has started in another thread."""
    operation = echo.Command().delay(partner=7, idempotency_key="once")

    assert operation.cancel() is False
    assert operation.cancelled() is False
    assert JobRun.objects.get().status == Status.RUNNING


def test_a_pending_run_is_cancelled() -> None:
    """cancel() of a pending run cancels its record."""
    operation = request().operation

    assert operation.cancel() is True
    assert isinstance(operation.exception(timeout=10), JobCancelled)
    assert JobRun.objects.get().status == Status.CANCELLED


@pytest.mark.usefixtures("_short_grace")
def test_a_killed_process_is_noticed(database: str, settings: Settings) -> None:
    """The waiting handle raises, and the run is recorded as lost."""
    environment = {
        "DJANGO_SETTINGS_MODULE": "tests.runs.settings",
        "RUNS_DATABASE": json.dumps(database_settings(database)),
        "RUNS_ENVIRONMENT": "test",
    }
    program, reconciled = [sys.executable, "-c", WORKER], []
    with subprocess.Popen(
        program, env={**os.environ, **environment}, cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "works\n"
        operation = echo.Command().delay(partner=7, idempotency_key="once")
        process.kill()
    JobRun.objects.update(started_at=LONG_AGO)
    TaskRun.objects.update(heartbeat_at=LONG_AGO)

    def receiver(run: JobRun, **values: Any) -> None:
        reconciled.append(run.status)

    run_reconciled.connect(receiver)
    with pytest.raises(JobFailed, match="process_died: The process ended without recording an outcome"):
        operation.result(timeout=30)
    run_reconciled.disconnect(receiver)
    assert (JobRun.objects.get().status, TaskRun.objects.get().status) == (Status.LOST, Status.LOST)
    assert reconciled == [Status.LOST]


@pytest.mark.usefixtures("_short_grace")
def test_a_run_whose_caller_died_is_lost() -> None:
    """A waiting handle marks a pending run as lost after the death of its process."""
    run = request(sending_until=LONG_AGO)

    assert isinstance(run.operation.exception(timeout=30), JobFailed)
    assert JobRun.objects.get().status == Status.LOST


def test_a_deleted_record_ends_the_handle() -> None:
    """The handle on a run whose record was deleted raises."""
    operation = request(status=Status.RUNNING).operation
    JobRun.objects.all().delete()

    assert "deleted" in str(operation.exception(timeout=10))


def test_a_heartbeat_restarts_the_grace_period(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with a recent heartbeat is not lost, however short the grace period is."""
    monkeypatch.setattr(inline, "LIVENESS_GRACE_SECONDS", 0)
    run = request(status=Status.RUNNING, started_at=LONG_AGO)
    TaskRun.objects.create(run=run, index=0, worker=run.pk)

    assert run.operation.done() is False
    assert JobRun.objects.get().status == Status.RUNNING


@pytest.mark.usefixtures("_short_grace")
@pytest.mark.parametrize("values", [{"environment": "production"}, {"execution": "echo-test-x7k2p"}])
def test_a_handle_leaves_other_runs_to_the_reconciler(values: dict[str, str]) -> None:
    """A handle does not mark a run of another environment, or one with an execution, as lost."""
    operation = InlineBackend(conf.load()).operation(silent(**values))

    with pytest.raises(TimeoutError):
        operation.result(timeout=0.5)

    assert JobRun.objects.get().status == Status.RUNNING


@pytest.mark.usefixtures("_short_grace")
def test_a_run_is_not_lost_in_a_transaction(database: str) -> None:
    """A transaction may not see new heartbeats."""
    operation = silent().operation

    with transaction.atomic(using=database), pytest.raises(TimeoutError):
        operation.result(timeout=0.5)

    assert JobRun.objects.get().status == Status.RUNNING


def silent(**values: Any) -> JobRun:
    """Record a run that started long ago without a heartbeat since."""
    run = request(status=Status.RUNNING, started_at=LONG_AGO, **values)
    TaskRun.objects.create(run=run, index=0, worker=run.pk, heartbeat_at=LONG_AGO)
    return run


@pytest.mark.usefixtures("_short_grace")
def test_a_silent_run_is_lost(cloud: CloudRun) -> None:
    """A silent run without an execution is marked as lost, once."""
    silent(environment="production")

    assert reconcile.reconcile(current()) == {"lost": 1}
    assert reconcile.reconcile(current()) == {}


def test_a_heartbeat_in_the_grace_period_keeps_the_run(cloud: CloudRun, database: str) -> None:
    """After an outage of the database all heartbeats are old, so runs are watched for a while."""
    run = silent(environment="production")

    def beat() -> None:
        TaskRun.objects.update(heartbeat_at=Now())
        connections[database].close()  # This thread's.

    timer = Timer(0.5, beat)
    timer.start()

    assert reconcile.reconcile(current()) == {}
    timer.join()
    run.refresh_from_db()
    assert run.status == Status.RUNNING


def test_a_run_is_lost_only_if_silent_at_each_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that were not silent at each look are kept."""
    seen = iter([[1, 2], [1, 3], [1]])
    monkeypatch.setattr(reconcile, "LIVENESS_POLL_INTERVAL", 0)
    monkeypatch.setattr(backoff.time, "monotonic", iter([0.0, 0.0, 0.0, 1.0, 1.0, 2.0, 100.0]).__next__)
    abandoned = SimpleNamespace(values_list=lambda *a, **k: next(seen), filter=lambda pk__in: pk__in)

    assert reconcile._dead(abandoned) == {1}


@pytest.mark.usefixtures("_short_grace")
def test_pending_inline_runs_are_lost() -> None:
    """Where jobs run in process, pending runs without a lease are marked as lost."""
    request(sending_until=LONG_AGO)
    request(sending_until=datetime.now(UTC).replace(year=2100))

    assert reconcile.reconcile(current()) == {"lost": 1}
