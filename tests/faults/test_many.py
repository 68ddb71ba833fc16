"""`delay_many()` on the emulator: one execution whose tasks run an element each."""

from __future__ import annotations

import pytest

from cloudrun_jobs.exceptions import JobFailed
from cloudrun_jobs.locks import current
from cloudrun_jobs.models import JobRun, Status
from tests.faults.conftest import Scene

pytestmark = pytest.mark.faults


def delay_many(scene: Scene, numbers: range) -> JobRun:
    sender = scene.send(f"print(Command().delay_many({{'number': n}} for n in {numbers}).run_id)")
    out, err = sender.communicate(timeout=60)
    assert sender.returncode == 0, err
    return JobRun.objects.get(pk=out.strip())


def test_each_element_is_run_once(scene: Scene) -> None:
    """A task is killed before it claims its run, and retried; three surplus tasks end at once."""
    scene.deploy(tasks=8, at_once=8, DIE_AT=f"before the claim@{scene.folder / 'died'}", RETRIES="1")
    scene.environment["TASKS_AT_ONCE"] = "8"
    run = delay_many(scene, range(5))
    results = run.operation.results(timeout=60)
    scene.over()
    [execution] = scene.executions()

    assert results == [{"number": number} for number in range(5)]
    assert sorted(line.split()[0] for line in scene.journal()) == list("01234")
    assert (execution.task_count, execution.succeeded_count, execution.retried_count) == (8, 8, 1)
    run.refresh_from_db()
    assert (run.status, run.succeeded_count) == (Status.SUCCEEDED, 5)
    assert list(current().holders("crj1:")) == []


def test_a_killed_element_has_failed(scene: Scene) -> None:
    """The other elements succeed; the record names the failed one."""
    scene.deploy(DIE_AT=f"in run()@{scene.folder / 'died'}")
    run = delay_many(scene, range(3))
    scene.over()
    scene.reconcile()
    results = run.operation.results(timeout=60)

    failed = [result for result in results if isinstance(result, JobFailed)]
    assert len(failed) == 1
    assert len(scene.journal()) == 2
    run.refresh_from_db()
    assert (run.status, run.succeeded_count, run.failed_count) == (Status.FAILED, 2, 1)
