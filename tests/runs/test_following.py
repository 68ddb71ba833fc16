"""Whoever waits for a run that another thread or process does learns how it ends, also where nobody tells."""

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

# A process that works on a run of its own, and never ends.
WORKER = """
import time
import django
django.setup()
from tests.jobs.management.commands.echo import Command
Command.run = lambda self, **options: print("works", flush=True) or time.sleep(600)
Command().delay(partner=7, idempotency_key="once")
"""


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have who listens for a silent process do so for a moment."""
    monkeypatch.setattr(inline, "LIVENESS_GRACE_SECONDS", 0.2)
    monkeypatch.setattr(reconcile, "LIVENESS_GRACE_SECONDS", 0.2)
    monkeypatch.setattr(reconcile, "LIVENESS_POLL_INTERVAL", 0.05)


@pytest.fixture
def worker(database: str) -> Iterator[Callable[[], None]]:
    """Have another thread work on a run until what this gives is called."""
    go_on, began = Event(), Event()

    def run(self: echo.Command, **options: Any) -> str:
        began.set()
        go_on.wait(60)
        return "of the other thread"

    def ask() -> None:
        try:
            echo.Command().delay(partner=7, idempotency_key="once")
        finally:
            connections[database].close()  # This thread's.

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as pool:
        patch.setattr(echo.Command, "run", run)
        pool.submit(ask)
        assert began.wait(60)
        yield go_on.set
        go_on.set()


def test_who_asks_again_follows_the_run(worker: Callable[[], None]) -> None:
    """The second handle of a key waits for the first one's end, and has its result."""
    operation, called = echo.Command().delay(partner=7, idempotency_key="once"), Event()
    operation.add_done_callback(lambda ended: called.set())
    assert (operation.done(), operation.running(), operation.cancelled()) == (False, True, False)
    worker()

    assert operation.result(timeout=30) == "of the other thread"
    assert operation.exception() is None
    assert called.wait(30)


def test_who_does_not_want_to_wait_so_long(worker: Callable[[], None]) -> None:
    """A timeout is kept, and says what is the case."""
    operation = echo.Command().delay(partner=7, idempotency_key="once")

    with pytest.raises(TimeoutError, match=r"Run .* of echo-test has not ended within 0.1 seconds"):
        operation.result(timeout=0.1)
    with pytest.raises(TimeoutError):
        operation.exception(timeout=0)


def test_work_in_another_thread_is_not_cancelled(worker: Callable[[], None]) -> None:
    """Nothing would stop it, and the handle does not say otherwise."""
    operation = echo.Command().delay(partner=7, idempotency_key="once")

    assert operation.cancel() is False
    assert operation.cancelled() is False
    assert JobRun.objects.get().status == Status.RUNNING


def test_a_run_that_has_not_begun_is_cancelled() -> None:
    """As its record says from then on."""
    operation = request().operation

    assert operation.cancel() is True
    assert isinstance(operation.exception(timeout=10), JobCancelled)
    assert JobRun.objects.get().status == Status.CANCELLED


@pytest.mark.usefixtures("_impatient")
def test_the_process_that_works_is_killed(database: str, settings: Settings) -> None:
    """Who waits is told that it died, and so is the record."""
    environment = {
        "DJANGO_SETTINGS_MODULE": "tests.runs.settings",
        "RUNS_DATABASE": json.dumps(database_settings(database)),
        "RUNS_ENVIRONMENT": "test",
    }
    program, settled = [sys.executable, "-c", WORKER], []
    with subprocess.Popen(
        program, env={**os.environ, **environment}, cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "works\n"
        operation = echo.Command().delay(partner=7, idempotency_key="once")
        process.kill()
    JobRun.objects.update(started_at=LONG_AGO)
    TaskRun.objects.update(heartbeat_at=LONG_AGO)

    def hear(run: JobRun, **values: Any) -> None:
        settled.append(run.status)

    run_reconciled.connect(hear)
    with pytest.raises(JobFailed, match="process_died: Its process ended without a word"):
        operation.result(timeout=30)
    run_reconciled.disconnect(hear)
    assert (JobRun.objects.get().status, TaskRun.objects.get().status) == (Status.LOST, Status.LOST)
    assert settled == [Status.LOST]


@pytest.mark.usefixtures("_impatient")
def test_the_process_that_asked_died_before_it_began() -> None:
    """A request that nobody carries out is given up by who waits for it."""
    run = request(sending_until=LONG_AGO)

    assert isinstance(run.operation.exception(timeout=30), JobFailed)
    assert JobRun.objects.get().status == Status.LOST


def test_the_record_is_deleted() -> None:
    """Nobody will tell how it ended."""
    operation = request(status=Status.RUNNING).operation
    JobRun.objects.all().delete()

    assert "deleted" in str(operation.exception(timeout=10))


def test_who_is_heard_again_is_not_given_up_by_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence counts from when it is listened to, without a sound between."""
    monkeypatch.setattr(inline, "LIVENESS_GRACE_SECONDS", 0)
    run = request(status=Status.RUNNING, started_at=LONG_AGO)
    TaskRun.objects.create(run=run, index=0, worker=run.pk)

    assert run.operation.done() is False
    assert JobRun.objects.get().status == Status.RUNNING


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("values", [{"environment": "production"}, {"execution": "echo-test-x7k2p"}])
def test_a_run_that_others_know_about_is_not_given_up(values: dict[str, str]) -> None:
    """Another environment's, or one of an execution: Cloud Run may have it wait for long before it begins."""
    operation = InlineBackend(conf.load()).operation(silent(**values))

    with pytest.raises(TimeoutError):
        operation.result(timeout=0.5)

    assert JobRun.objects.get().status == Status.RUNNING


@pytest.mark.usefixtures("_impatient")
def test_a_run_is_not_given_up_in_a_transaction(database: str) -> None:
    """It may not see what is told meanwhile."""
    operation = silent().operation

    with transaction.atomic(using=database), pytest.raises(TimeoutError):
        operation.result(timeout=0.5)

    assert JobRun.objects.get().status == Status.RUNNING


def silent(**values: Any) -> JobRun:
    """Record a run that began long ago, and of which nothing was heard since."""
    run = request(status=Status.RUNNING, started_at=LONG_AGO, **values)
    TaskRun.objects.create(run=run, index=0, worker=run.pk, heartbeat_at=LONG_AGO)
    return run


@pytest.mark.usefixtures("_impatient")
def test_a_run_that_stays_silent_is_lost(cloud: CloudRun) -> None:
    """Without an execution there is nobody to ask."""
    silent(environment="production")

    assert reconcile.reconcile(current()) == {"lost": 1}
    assert reconcile.reconcile(current()) == {}


def test_a_database_that_was_away_is_no_silence(cloud: CloudRun, database: str) -> None:
    """All heartbeats are old when it is back; who lives is heard, for it is listened to, before it is given up."""
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


def test_a_run_that_falls_silent_later_is_listened_to_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only who was silent at each look is given up."""
    seen = iter([[1, 2], [1, 3], [1]])
    monkeypatch.setattr(reconcile, "LIVENESS_POLL_INTERVAL", 0)
    monkeypatch.setattr(backoff.time, "monotonic", iter([0.0, 0.0, 0.0, 1.0, 1.0, 2.0, 100.0]).__next__)
    abandoned = SimpleNamespace(values_list=lambda *a, **k: next(seen), filter=lambda pk__in: pk__in)

    assert reconcile._dead(abandoned) == {1}


@pytest.mark.usefixtures("_impatient")
def test_requests_that_died_in_this_process_are_lost() -> None:
    """Where jobs run in the process that asks for them, nobody sends later what it left."""
    request(sending_until=LONG_AGO)
    request(sending_until=datetime.now(UTC).replace(year=2100))

    assert reconcile.reconcile(current()) == {"lost": 1}
