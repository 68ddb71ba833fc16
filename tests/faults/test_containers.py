"""Containers that die at work: the record has the outcome, and retries complete the work."""

from __future__ import annotations

import json
import time

import pytest

from cloudrun_jobs.locks import current
from cloudrun_jobs.models import JobRun, LockSlot, Status, TaskRun
from tests.emulator.cloud import eventually
from tests.faults.conftest import Scene
from tests.faults.project import death

pytestmark = pytest.mark.faults


def delay(scene: Scene, *options: str) -> JobRun:
    sender = scene.send(f"print(Command().delay(number=1, {', '.join(options)}).run_id)")
    out, err = sender.communicate(timeout=60)
    assert sender.returncode == 0, err
    return JobRun.objects.get(pk=out.strip())


@pytest.mark.parametrize("step", death.STEPS)
def test_a_killed_attempt_is_retried(scene: Scene, step: str) -> None:
    """Cloud Run's retry of a killed task completes the same run."""
    scene.deploy(DIE_AT=f"{step}@{scene.folder / 'died'}", RETRIES="1")
    run = delay(scene)
    scene.over()
    scene.reconcile()

    run.refresh_from_db()
    assert (run.status, run.succeeded_count) == (Status.SUCCEEDED, 1)
    assert run.retried_count == (0 if step == "after the outcome" else 1)  # Then nothing is left to retry.
    # Work whose end was not recorded is repeated: retries are at-least-once.
    assert len(scene.journal()) == (2 if step == "after run()" else 1)
    assert len(scene.executions()) == 1


@pytest.mark.parametrize("step", death.STEPS)
def test_a_killed_last_attempt_ends_the_run(scene: Scene, step: str) -> None:
    """Without retries, the reconciler records the failure that Cloud Run reports."""
    scene.deploy(DIE_AT=f"{step}@{scene.folder / 'died'}")
    run = delay(scene)
    scene.over()
    scene.reconcile()

    run.refresh_from_db()
    assert run.status == (Status.SUCCEEDED if step == "after the outcome" else Status.FAILED)
    assert set(TaskRun.objects.values_list("status", flat=True)) <= {run.status}
    assert list(current().holders("crj1:")) == []
    assert scene.reconcile() == {}


def test_a_second_execution_of_a_run_is_superseded(scene: Scene) -> None:
    """A second execution with the same run id exits with status 0."""
    scene.deploy()
    run = delay(scene, f"wait_for={str(scene.folder / 'go')!r}")
    eventually(scene.journal)
    again = scene.emulator.clients.jobs.run_job(_same_as(scene.executions()[0]))
    assert again.result(timeout=60).succeeded_count == 1
    (scene.folder / "go").touch()
    scene.over()

    run.refresh_from_db()
    assert (run.status, len(scene.journal()), len(scene.executions())) == (Status.SUCCEEDED, 1, 2)


def test_ten_tasks_are_all_skipped(scene: Scene) -> None:
    """The tasks of a duplicate that start after the end of the first execution do not work either."""
    scene.deploy(tasks=10, at_once=5)
    option = f"wait_for={str(scene.folder / 'go')!r}"
    first = delay(scene, option)
    eventually(lambda: len(scene.journal()) == 5)
    second = delay(scene, option)
    eventually(lambda: TaskRun.objects.filter(run=second, status=Status.SKIPPED).exists())
    (scene.folder / "go").touch()
    scene.over()

    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.status, first.succeeded_count, len(scene.journal())) == (Status.SUCCEEDED, 10, 10)
    assert (second.status, second.reason, second.succeeded_count) == (Status.SKIPPED, "lock_held", 0)
    assert second.tasks.filter(status=Status.SKIPPED).count() == 10
    assert not LockSlot.objects.filter(expires_us__gt=time.time() * 1e6).exists()


def test_a_cancelled_execution_whose_later_tasks_never_started_holds_no_lock(scene: Scene) -> None:
    """The slot that its tasks share is free once the run is recorded as cancelled."""
    scene.deploy(tasks=3, at_once=1)
    run = delay(scene, "wait_for='/never'")
    eventually(scene.journal)
    assert len(current().holders("crj1:")) == 4

    assert JobRun.objects.get(pk=run.pk).cancel()
    scene.over()
    assert run.refresh().status == Status.CANCELLED
    assert list(current().holders("crj1:")) == []


def test_out_of_memory_is_recorded(scene: Scene) -> None:
    """The record of a task that the kernel killed has Cloud Run's reason."""
    scene.deploy()
    scene.emulator.faults.out_of_memory()
    run = delay(scene)
    scene.over()
    scene.reconcile()

    run.refresh_from_db()
    assert (run.status, run.reason) == (Status.FAILED, "out_of_memory")
    assert "memory limit" in run.error_message


def test_an_execution_is_cancelled_in_the_console(scene: Scene) -> None:
    """SIGTERM interrupts run(), and the run is cancelled once Cloud Run has reported that."""
    scene.deploy()
    run = delay(scene, "wait_for='/never'")
    eventually(scene.journal)
    scene.emulator.clients.executions.cancel_execution(name=scene.executions()[0].name)
    scene.over()

    run.refresh_from_db()
    assert (run.status, run.reason, run.error_class) == (Status.FAILED, "interrupted", "JobInterrupted")
    assert scene.reconcile() == {"cancelled": 1}
    run.refresh_from_db()
    assert (run.status, run.reason, run.error_class) == (Status.CANCELLED, "cancelled", "JobInterrupted")


def test_a_deleted_execution_is_lost(scene: Scene) -> None:
    """A run is lost if its container died and its execution was deleted."""
    scene.deploy(DIE_AT=f"in run()@{scene.folder / 'died'}")
    run = delay(scene)
    scene.over()
    scene.emulator.prune(scene.executions()[0].name)
    scene.reconcile()

    run.refresh_from_db()
    assert (run.status, run.reason) == (Status.LOST, "deleted")


def test_a_service_error_leaves_the_run_as_it_is(scene: Scene) -> None:
    """A run whose state cannot be read is not changed."""
    scene.deploy()
    run = delay(scene, f"wait_for={str(scene.folder / 'go')!r}")
    eventually(scene.journal)
    scene.emulator.faults.fail("Executions.GetExecution", "UNAVAILABLE")

    assert scene.reconcile() == {"unknown": 1}
    assert scene.reconcile() == {"under way": 1}
    (scene.folder / "go").touch()
    scene.over()
    run.refresh_from_db()
    assert run.status == Status.SUCCEEDED


@pytest.mark.parametrize("ahead", [3600, -3600])
def test_a_wrong_clock_changes_nothing(scene: Scene, ahead: int) -> None:
    """The times of a run are the database's, even if a container's clock is off by an hour."""
    given = {**json.loads(scene.environment["CRASH_SETTINGS"]), "ahead": ahead}
    scene.deploy(CRASH_SETTINGS=json.dumps(given))
    run = delay(scene)
    scene.over()

    run.refresh_from_db()
    assert run.status == Status.SUCCEEDED
    assert run.created_at <= run.started_at <= run.finished_at
    assert (run.finished_at - run.created_at).total_seconds() < 600


def _same_as(execution: object) -> dict[str, object]:
    container = execution.template.containers[0]
    override = {"args": list(container.args), "env": [env for env in container.env if "RUN_ID" in env.name]}
    return {"name": execution.name.partition("/executions/")[0], "overrides": {"container_overrides": [override]}}
