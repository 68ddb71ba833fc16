"""Tasks on the emulator that claim items, and are killed, stopped, cancelled or cut off from the database."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from typing import Any

import pytest
from django.db import connections

from cloudrun_jobs.models import ItemChunk, JobRun, Progress, Status
from tests.emulator.cloud import PLACE, eventually, job
from tests.faults.conftest import Scene
from tests.servers import sql
from tests.servers.fixtures import add_database
from tests.servers.process import Server

pytestmark = pytest.mark.faults

DONE_ONCE = Counter(map(str, range(40)))


@pytest.fixture(scope="module")
def database(server: Server, django_db_setup: None, django_db_blocker: Any) -> str:
    with django_db_blocker.unblock():
        return add_database("claimed", sql.postgres_settings(server.port))


def deploy(scene: Scene, tasks: int, *, retries: int = 0) -> None:
    env = {**scene.environment, "RETRIES": str(retries)}
    declared = job(
        sys.executable,
        "-m",
        "django",
        retries=retries,
        timeout="600s",
        env=env,
        task_count=tasks,
        parallelism=tasks,
    )
    scene.emulator.clients.jobs.create_job(parent=PLACE, job=declared, job_id="claimer-production").result()


def delay(scene: Scene, **options: Any) -> JobRun:
    sender = scene.send(
        "from tests.faults.project.management.commands.claimer import Command\n"
        f"print(Command().delay(**{options!r}).run_id)"
    )
    out, err = sender.communicate(timeout=60)
    assert sender.returncode == 0, err
    return JobRun.objects.get(pk=out.strip())


def over(scene: Scene) -> list[Any]:
    clients, parent = scene.emulator.clients, f"{PLACE}/jobs/claimer-production"
    eventually(lambda: all(each.completion_time for each in clients.executions.list_executions(parent=parent)))
    return list(clients.executions.list_executions(parent=parent))


def effects() -> Counter[str]:
    return Counter(JobRun.objects.filter(command="effect").values_list("reason", flat=True))


def pid(scene: Scene) -> int:
    path = scene.folder / "paused"
    return int(eventually(lambda: path.exists() and path.read_text()))


def check(scene: Scene, run: JobRun) -> None:
    """Each item was done once, and the record says so."""
    run.refresh_from_db()
    assert effects() == DONE_ONCE
    assert (run.status, run.items_total) == (Status.SUCCEEDED, 40)
    assert set(ItemChunk.objects.values_list("status", flat=True)) == {"done"}


@pytest.mark.parametrize("batch", [1, 7])
def test_a_killed_task_is_retried(scene: Scene, batch: int) -> None:
    """The retry of a killed task continues; each item is done once."""
    deploy(scene, 4, retries=1)
    run = delay(scene, kill_at=17, batch=batch)
    [execution] = over(scene)

    assert execution.retried_count == 1
    check(scene, run)


def test_another_task_takes_over_from_a_dead_one(scene: Scene) -> None:
    """Without a retry, another task does the item when the lease of three seconds has expired."""
    deploy(scene, 3)
    run = delay(scene, kill_at=3, lease=3, batch=2)
    over(scene)

    run.refresh_from_db()
    assert effects() == DONE_ONCE
    assert set(ItemChunk.objects.values_list("status", flat=True)) == {"done"}


def test_a_frozen_task_rolls_back(scene: Scene) -> None:
    """A task that was stopped past its lease drops the item that another task has done meanwhile."""
    deploy(scene, 2)
    run = delay(scene, pause_at=0, lease=2, batch=3)
    frozen = pid(scene)
    os.kill(frozen, signal.SIGSTOP)
    (scene.folder / "go").touch()
    eventually(lambda: len(effects()) == 40)
    os.kill(frozen, signal.SIGCONT)
    over(scene)

    check(scene, run)


def test_a_cancelled_run_keeps_its_cursor(scene: Scene) -> None:
    """After a cancellation the chunk is free and its cursor is saved; no task continues."""
    deploy(scene, 1, retries=3)
    run = delay(scene, pause_at=5, batch=40)
    pid(scene)
    assert run.cancel()
    over(scene)

    eventually(lambda: JobRun.objects.get(pk=run.pk).status == Status.CANCELLED)
    assert ItemChunk.objects.values_list("cursor", "status", "worker").get() == (5, "open", None)
    assert effects() == Counter(map(str, range(5)))
    assert JobRun.objects.get(pk=run.pk).progress == Progress(5, 40, "")


@pytest.mark.parametrize("cloudrun_emulator_options", [{"grace": 10.0}])
def test_the_cursor_is_saved_if_the_job_ignores_sigterm(scene: Scene) -> None:
    """A task that ignores SIGTERM is ended before SIGKILL, with its cursor saved."""
    deploy(scene, 1)
    run = delay(scene, pause_at=5, batch=40, ignore_sigterm=True)
    ItemChunk.objects.update(cursor=0)
    pid(scene)
    run.cancel()
    over(scene)

    assert ItemChunk.objects.get().cursor == 5


def test_a_database_restarts(scene: Scene, server: Server, database: str) -> None:
    """The tasks continue with new connections; each item is done once."""
    deploy(scene, 4)
    run = delay(scene, pause_at=20)
    pid(scene)
    server.process.send_signal(signal.SIGQUIT)
    server.process.wait(30)
    connections[database].close()
    server.start()
    (scene.folder / "go").touch()
    over(scene)

    run.refresh_from_db()
    assert effects() == DONE_ONCE
    assert run.status == Status.SUCCEEDED
