"""Brokers, databases and callers that fail while runs are sent and work: none is lost, and none is done twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from django.db import connections, transaction
from django.db.models.functions import Now

from cloudrun_jobs.exceptions import ServiceUnavailable
from cloudrun_jobs.models import JobRun, Status, TaskRun
from cloudrun_jobs.runs.reconcile import reconcile_all
from tests.celery_workers.cluster import ROOT, Cluster, Worker, ended
from tests.celery_workers.project.management.commands.step import Command
from tests.faults.conftest import RECONCILE_AGE
from tests.servers import sql
from tests.servers.fixtures import add_database
from tests.servers.process import Server
from tests.waiting import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("worker")]

DIE = "os.kill(os.getpid(), signal.SIGKILL)"
BEFORE_THE_MESSAGE = f"""
from django.db import transaction
with transaction.atomic():
    transaction.on_commit(lambda: {DIE})
    Command().delay()
"""
AFTER_THE_MESSAGE = f"""
from cloudrun_jobs.models import JobRun
JobRun.mark_sent = lambda run, operation: {DIE}
Command().delay()
"""


@pytest.fixture(scope="module")
def database_server() -> Any:
    server = sql.postgres()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def records(database_server: Server, django_db_setup: None, django_db_blocker: Any) -> str:
    """Keep the records on a server that no other module uses."""
    with django_db_blocker.unblock():
        return add_database("celery_outages", sql.postgres_settings(database_server.port))


@pytest.fixture(scope="module")
def worker(cluster: Cluster) -> Worker:
    return cluster.start("prefork")


@pytest.fixture
def go(tmp_path: Path) -> Path:
    """A file that ends the jobs that wait for it."""
    return tmp_path / "go"


def reconcile() -> dict[str, int]:
    """Make the records ten minutes older, and reconcile them."""
    past = Now() - RECONCILE_AGE
    JobRun.objects.update(created_at=past)
    for field in ("sending_until", "sent_at", "started_at"):
        JobRun.objects.exclude(**{field: None}).update(**{field: past})
    TaskRun.objects.exclude(status=Status.RUNNING).update(heartbeat_at=past)
    return reconcile_all()


@pytest.mark.parametrize("script", [BEFORE_THE_MESSAGE, AFTER_THE_MESSAGE])
def test_a_caller_is_killed(cluster: Cluster, script: str) -> None:
    """Before its message, `reconcile` sends the run; after it, the worker claims a run that is still pending."""
    lines = ["import django, os, signal", "django.setup()"]
    imports = "from tests.celery_workers.project.management.commands.step import Command"
    variables = {
        "PYTHONPATH": str(ROOT),
        "DJANGO_SETTINGS_MODULE": "tests.celery_workers.project.settings",
        "CELERY_TEST_SETTINGS": json.dumps(cluster.given),
        "CELERY_TEST_BROKER": cluster.broker,
    }
    program = "\n".join([*lines, imports, script])
    caller = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **variables}, cwd=ROOT, check=False
    )
    assert caller.returncode == -signal.SIGKILL
    run = JobRun.objects.latest()
    if script == BEFORE_THE_MESSAGE:
        assert (run.status, reconcile()) == (Status.PENDING, {"sent": 1})

    assert ended(run).status == Status.SUCCEEDED
    assert reconcile() == {}
    assert cluster.events(run) == ["begin", "end"]


def test_the_broker_is_restarted_empty(cluster: Cluster, broker: Server, go: Path) -> None:
    """Redis without persistence loses the messages: of the runs that work, and of those that wait."""
    working = [Command().delay(until=str(go), seconds=number / 1000).run for number in range(2)]
    for run in working:
        cluster.begun(run)
    waiting = Command().delay(seconds=0.5).run
    broker.kill()
    broker.start()
    go.touch()
    for run in working:
        assert ended(run).status == Status.SUCCEEDED

    assert reconcile() == {"redelivered": 1}
    assert ended(waiting).status == Status.SUCCEEDED
    assert {tuple(cluster.events(run)) for run in (*working, waiting)} == {("begin", "end")}


def test_the_broker_does_not_respond(cluster: Cluster, broker: Server, settings: Any) -> None:
    """Outside a transaction `delay()` raises within its deadline; in one, `reconcile` sends the run later."""
    options = {**settings.CLOUDRUN_JOBS["OPTIONS"], "send_deadline": 3}
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "OPTIONS": options}
    broker.process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(ServiceUnavailable, match="is unavailable"):
            Command().delay()
        assert time.monotonic() - began < 10
        with transaction.atomic(using="celery_outages"):
            run = Command().delay(seconds=0.25).run
        assert JobRun.objects.get(pk=run.pk).status == Status.PENDING
    finally:
        broker.process.send_signal(signal.SIGCONT)

    wait_for(lambda: reconcile() or JobRun.objects.get(pk=run.pk).is_finished)
    assert ended(run).status == Status.SUCCEEDED
    assert cluster.events(run) == ["begin", "end"]


def test_a_cancellation_does_not_wait_for_the_broker(
    cluster: Cluster, broker: Server, settings: Any, go: Path
) -> None:
    """`cancel()` returns within its deadline, and the worker reads the cancellation from the record."""
    options = {**settings.CLOUDRUN_JOBS["OPTIONS"], "send_deadline": 2}
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "OPTIONS": options}
    other = Command().delay(seconds=0.125).run
    other.cancel()  # Opens the connection.
    run = Command().delay(until=str(go), progress=True).run
    cluster.begun(run)
    broker.process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert run.cancel()
        assert time.monotonic() - began < 8
        assert ended(run).status == Status.CANCELLED
    finally:
        broker.process.send_signal(signal.SIGCONT)


def test_the_database_is_restarted(cluster: Cluster, database_server: Server, go: Path) -> None:
    """A running run continues, and one that is delivered during the outage waits for the database."""
    working = Command().delay(until=str(go)).run
    cluster.begun(working)
    waiting = Command().delay(seconds=0.75).run
    database_server.process.send_signal(signal.SIGQUIT)
    database_server.process.wait(30)
    connections["celery_outages"].close()
    go.touch()
    wait_for(lambda: "end" in cluster.events(working))
    database_server.start()

    assert [ended(run, 60).status for run in (working, waiting)] == [Status.SUCCEEDED] * 2
    assert {tuple(cluster.events(run)) for run in (working, waiting)} == {("begin", "end")}
