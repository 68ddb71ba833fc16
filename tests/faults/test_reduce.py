"""Containers that die in `reduce()`, and runs of failed tasks, as processes of the emulator."""

from __future__ import annotations

import pytest

from cloudrun_jobs.locks import current
from cloudrun_jobs.models import JobRun, Status
from tests.faults.conftest import Scene
from tests.faults.test_containers import delay

RESULT = {"number": 1}

pytestmark = pytest.mark.faults


def done(scene: Scene) -> tuple[int, int]:
    """Return how often the work was done, and how often reduce() was called."""
    lines = scene.journal()
    return len(lines) - lines.count("reduced"), lines.count("reduced")


def test_tasks_that_end_together_are_reduced_once(scene: Scene) -> None:
    """Their own execution calls reduce(), and then holds no lock."""
    scene.deploy(tasks=4, REDUCES="1")
    run = delay(scene)
    scene.over()

    run.refresh_from_db()
    assert (run.status, run.result, run.succeeded_count) == (Status.SUCCEEDED, [RESULT] * 4, 4)
    assert (done(scene), len(scene.executions())) == ((4, 1), 1)
    assert list(current().holders("crj1:")) == []


def test_a_killed_reduce_is_called_in_another_execution(scene: Scene) -> None:
    """Without retries, `reconcile` starts it; the work is not done again."""
    scene.deploy(tasks=2, REDUCES="1", DIE_AT=f"in reduce()@{scene.folder / 'died'}")
    run = delay(scene)
    operation = run.operation
    scene.over()
    assert operation.done() is False

    assert scene.reconcile() == {"reducing": 1}
    scene.over()
    assert operation.result(timeout=30) == [RESULT] * 2
    run.refresh_from_db()
    assert (run.status, run.succeeded_count, run.task_count) == (Status.SUCCEEDED, 2, 2)
    assert (done(scene), len(scene.executions())) == ((2, 1), 2)
    assert scene.reconcile() == {}
    assert list(current().holders("crj1:")) == []


def test_failed_tasks_are_repeated(scene: Scene) -> None:
    """The new execution has as many tasks as failed, and its results replace theirs."""
    scene.deploy(tasks=4, REDUCES="1", FAILING="1 3", MENDED=str(scene.folder / "mended"))
    run = delay(scene)
    scene.over()
    run.refresh_from_db()
    assert (run.status, run.succeeded_count, run.failed_count, done(scene)) == (Status.FAILED, 2, 2, (2, 0))

    (scene.folder / "mended").touch()
    out, err = scene.send(f"""
from cloudrun_jobs.models import JobRun
print(JobRun.objects.get(pk={str(run.pk)!r}).rerun(failed_only=True).run_id)
""").communicate(timeout=60)
    assert not err
    scene.over()
    again = JobRun.objects.get(pk=out.strip())
    assert (again.status, again.task_count, again.result) == (Status.SUCCEEDED, 2, [RESULT] * 4)
    assert done(scene) == (4, 1)


@pytest.mark.parametrize("step", ["in reduce()", "after run()", "after the outcome"])
@pytest.mark.parametrize("retries", [0, 1])
def test_one_value_is_recorded(scene: Scene, step: str, retries: int) -> None:
    """The work is recorded before reduce(): wherever a process dies after it, the work is done once."""
    scene.deploy(tasks=2, at_once=1, REDUCES="1", RETRIES=str(retries), DIE_AT=f"{step}@{scene.folder / 'died'}")
    run = delay(scene)
    scene.over()
    scene.reconcile()
    scene.over()
    scene.reconcile()

    run.refresh_from_db()
    assert (run.status, run.result, done(scene)) == (Status.SUCCEEDED, [RESULT] * 2, (2, 1))
    assert list(current().holders("crj1:")) == []
    assert scene.reconcile() == {}


@pytest.mark.parametrize("retries", [0, 1])
def test_a_process_that_dies_before_the_value_is_recorded(scene: Scene, retries: int) -> None:
    """reduce() is called again: it is called at least once."""
    scene.deploy(REDUCES="1", RETRIES=str(retries), DIE_AT=f"after run()@{scene.folder / 'died'}")
    run = delay(scene)
    scene.over()
    scene.reconcile()
    scene.over()

    run.refresh_from_db()
    assert (run.status, run.result, done(scene)) == (Status.SUCCEEDED, [RESULT], (1, 2))
    assert len(scene.executions()) == 2 - retries
