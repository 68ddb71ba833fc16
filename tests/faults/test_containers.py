"""Who does the work dies on the way: the record tells the truth, and what is tried again is done."""

from __future__ import annotations

import json

import pytest

from cloudrun_jobs.models import JobRun, Status, TaskRun
from tests.emulator.cloud import eventually
from tests.faults.conftest import Scene
from tests.faults.project import death


def delay(scene: Scene, *options: str) -> JobRun:
    sender = scene.send(f"print(Command().delay(number=1, {', '.join(options)}).run_id)")
    out, err = sender.communicate(timeout=60)
    assert sender.returncode == 0, err
    return JobRun.objects.get(pk=out.strip())


@pytest.mark.parametrize("step", death.STEPS)
def test_a_killed_attempt_is_made_again(scene: Scene, step: str) -> None:
    """Cloud Run's retry of a task that was killed does what is left to do, in the same run."""
    scene.deploy(DIE_AT=f"{step}@{scene.folder / 'died'}", RETRIES="1")
    run = delay(scene)
    scene.over()
    scene.look_after()

    run.refresh_from_db()
    assert (run.status, run.succeeded_count) == (Status.SUCCEEDED, 1)
    # Work whose end could not be told is done again: at least once is what Cloud Run's retries are.
    assert len(scene.journal()) == (2 if step == "after run()" else 1)
    assert len(scene.executions()) == 1


@pytest.mark.parametrize("step", death.STEPS)
def test_a_killed_last_attempt_ends_the_run(scene: Scene, step: str) -> None:
    """Without retries, who looks after the run learns from Cloud Run that it failed, unless it told before."""
    scene.deploy(DIE_AT=f"{step}@{scene.folder / 'died'}")
    run = delay(scene)
    scene.over()
    scene.look_after()

    run.refresh_from_db()
    assert run.status == (Status.SUCCEEDED if step == "after the outcome" else Status.FAILED)
    assert set(TaskRun.objects.values_list("status", flat=True)) <= {run.status}
    assert scene.look_after() == {}


def test_two_containers_for_one_run(scene: Scene) -> None:
    """The second execution that is told the same run steps aside with status 0."""
    scene.deploy()
    run = delay(scene, f"wait_for={str(scene.folder / 'go')!r}")
    eventually(scene.journal)
    again = scene.emulator.clients.jobs.run_job(_same_as(scene.executions()[0]))
    assert again.result(timeout=60).succeeded_count == 1
    (scene.folder / "go").touch()
    scene.over()

    run.refresh_from_db()
    assert (run.status, len(scene.journal()), len(scene.executions())) == (Status.SUCCEEDED, 1, 2)


def test_out_of_memory_is_told(scene: Scene) -> None:
    """Of a task that the kernel killed, the record says what Cloud Run says."""
    scene.deploy()
    scene.emulator.faults.out_of_memory()
    run = delay(scene)
    scene.over()
    scene.look_after()

    run.refresh_from_db()
    assert (run.status, run.reason) == (Status.FAILED, "out_of_memory")
    assert "memory limit" in run.error_message


def test_cancelled_in_the_console(scene: Scene) -> None:
    """SIGTERM interrupts run(), and the run is cancelled."""
    scene.deploy()
    run = delay(scene, "wait_for='/never'")
    eventually(scene.journal)
    scene.emulator.clients.executions.cancel_execution(name=scene.executions()[0].name)
    scene.over()

    run.refresh_from_db()
    assert (run.status, run.reason, run.error_class) == (Status.CANCELLED, "cancelled", "JobInterrupted")


def test_an_execution_that_is_gone_is_lost(scene: Scene) -> None:
    """Nobody can say what became of a run whose container died and whose execution was deleted."""
    scene.deploy(DIE_AT=f"in run()@{scene.folder / 'died'}")
    run = delay(scene)
    scene.over()
    scene.emulator.prune(scene.executions()[0].name)
    scene.look_after()

    run.refresh_from_db()
    assert (run.status, run.reason) == (Status.LOST, "deleted")


def test_an_error_of_the_service_says_nothing(scene: Scene) -> None:
    """A run whose execution cannot be asked about is left as it is."""
    scene.deploy()
    run = delay(scene, f"wait_for={str(scene.folder / 'go')!r}")
    eventually(scene.journal)
    scene.emulator.faults.fail("Executions.GetExecution", "UNAVAILABLE")

    assert scene.look_after() == {"unknown": 1}
    assert scene.look_after() == {"under way": 1}
    (scene.folder / "go").touch()
    scene.over()
    run.refresh_from_db()
    assert run.status == Status.SUCCEEDED


@pytest.mark.parametrize("ahead", [3600, -3600])
def test_a_wrong_clock_changes_nothing(scene: Scene, ahead: int) -> None:
    """The times of a run are the database's: a container's clock may be off by an hour."""
    told = {**json.loads(scene.environment["CRASH_SETTINGS"]), "ahead": ahead}
    scene.deploy(CRASH_SETTINGS=json.dumps(told))
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
