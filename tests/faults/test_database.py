"""Jobs whose database is unavailable, and jobs that are terminated."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connections

from cloudrun_jobs.models import JobRun, Status
from tests.emulator.cloud import eventually
from tests.faults.conftest import Scene
from tests.faults.test_containers import delay
from tests.servers import sql
from tests.servers.fixtures import add_database
from tests.servers.process import Server

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def database(server: Server, django_db_setup: None, django_db_blocker: Any) -> str:
    with django_db_blocker.unblock():
        return add_database("away", sql.postgres_settings(server.port))


def stop(server: Server) -> None:
    """Stop the server, which cuts all connections as a failover does."""
    server.process.send_signal(signal.SIGQUIT)
    server.process.wait(30)
    connections["away"].close()


def test_a_database_restarts_under_a_job(scene: Scene, server: Server) -> None:
    """The job continues, and its outcome is recorded on a new connection."""
    scene.deploy()
    run = delay(scene, f"wait_for={str(scene.folder / 'go')!r}")
    eventually(scene.journal)
    stop(server)
    server.start()
    (scene.folder / "go").touch()
    scene.over()

    run.refresh_from_db()
    assert (run.status, run.result) == (Status.SUCCEEDED, {"number": 1})


def test_a_database_is_unavailable_when_a_job_ends(scene: Scene, server: Server) -> None:
    """The job retries until the outcome is recorded."""
    scene.deploy()
    run = delay(scene, f"wait_for={str(scene.folder / 'go')!r}")
    eventually(scene.journal)
    stop(server)
    (scene.folder / "go").touch()
    eventually(lambda: "over" in scene.lines())
    server.start()
    scene.over()

    run.refresh_from_db()
    assert run.status == Status.SUCCEEDED


def set_read_only(on: bool) -> None:
    """Make the whole server read-only, or writable; sessions stay open."""
    with connections["away"].cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = off")
        cursor.execute(f"ALTER SYSTEM SET default_transaction_read_only = {'on' if on else 'off'}")
        cursor.execute("SELECT pg_reload_conf()")
    connections["away"].close()


@pytest.fixture
def read_only(server: Server) -> Iterator[None]:
    set_read_only(True)
    yield
    set_read_only(False)


def test_a_database_is_read_only_when_a_job_ends(scene: Scene, request: pytest.FixtureRequest) -> None:
    """The job keeps its locks and retries until the outcome is recorded."""
    scene.deploy()
    run = delay(scene, f"wait_for={str(scene.folder / 'go')!r}")
    eventually(scene.journal)
    request.getfixturevalue("read_only")
    (scene.folder / "go").touch()
    eventually(lambda: "over" in scene.lines())
    time.sleep(4)
    set_read_only(False)
    scene.over()

    run.refresh_from_db()
    assert (run.status, run.result) == (Status.SUCCEEDED, {"number": 1})


def test_a_database_is_read_only_when_a_job_starts(scene: Scene, request: pytest.FixtureRequest) -> None:
    """The job waits until it can claim its run."""
    scene.deploy()
    run = delay(scene)
    request.getfixturevalue("read_only")
    time.sleep(4)
    set_read_only(False)
    scene.over()

    run.refresh_from_db()
    assert run.status == Status.SUCCEEDED


def test_a_timeout_is_recorded(scene: Scene) -> None:
    """A job that exceeds its timeout fails for that reason."""
    scene.deploy(TIMEOUT="2")
    run = delay(scene, "wait_for='/never'")
    scene.over()

    run.refresh_from_db()
    assert (run.status, run.reason, run.error_class) == (Status.FAILED, "timeout", "JobInterrupted")


@pytest.mark.parametrize("cloudrun_emulator_options", [{"grace": 10.0}])
def test_a_job_that_ignores_sigterm(scene: Scene) -> None:
    """The outcome is recorded before SIGKILL."""
    scene.deploy()
    run = delay(scene, "wait_for='/never'", "ignore_sigterm=True")
    eventually(scene.journal)
    scene.emulator.clients.executions.cancel_execution(name=scene.executions()[0].name)
    scene.over()

    run.refresh_from_db()
    assert (run.status, run.reason) == (Status.FAILED, "interrupted")


def test_maintenance_is_survived(scene: Scene) -> None:
    """A job that is paused for maintenance continues on working connections."""
    scene.deploy()
    run = delay(scene, f"wait_for={str(scene.folder / 'go')!r}")
    eventually(scene.journal)
    scene.emulator.maintain(scene.executions()[0].name, 1)
    (scene.folder / "go").touch()
    scene.over()

    assert JobRun.objects.get(pk=run.pk).status == Status.SUCCEEDED
