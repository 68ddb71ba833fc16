"""Callers that die during a dispatch: the run is done once, and recorded."""

from __future__ import annotations

import signal

import pytest

from cloudrun_jobs.models import JobRun, Status
from tests.emulator.cloud import eventually
from tests.faults.conftest import Scene

pytestmark = pytest.mark.faults

DIE = "os.kill(os.getpid(), signal.SIGKILL)"

IN_A_TRANSACTION = f"""
from django.db import transaction
with transaction.atomic():
    transaction.on_commit(lambda: {DIE})
    Command().delay(number=1)
"""
AFTER_THE_REPLY = f"""
from cloudrun_jobs.models import JobRun
JobRun.mark_sent = lambda run, operation: {DIE}
Command().delay(number=1)
"""


def check_done_once(scene: Scene) -> None:
    scene.over()
    scene.reconcile()
    scene.over()
    assert [line.split()[0] for line in scene.journal()] == ["1"]
    assert scene.statuses() == [Status.SUCCEEDED]
    assert JobRun.objects.get().result == {"number": 1}


def test_killed_before_the_request(scene: Scene) -> None:
    """The reconciler dispatches a run that was committed but not sent."""
    scene.deploy()

    assert scene.send(IN_A_TRANSACTION).wait(60) == -signal.SIGKILL
    assert (scene.statuses(), scene.executions()) == ([Status.PENDING], [])
    assert scene.reconcile() == {"sent": 1}
    check_done_once(scene)


def test_killed_before_the_reply(scene: Scene) -> None:
    """An execution whose reply was never read claims its run itself."""
    scene.deploy()
    scene.emulator.faults.delay("Jobs.RunJob", 30, times=1)
    sender = scene.send("Command().delay(number=1)")
    eventually(scene.executions)
    sender.kill()

    check_done_once(scene)
    assert len(scene.executions()) == 1


def test_killed_after_the_reply(scene: Scene) -> None:
    """An execution whose reply was not recorded claims its run itself."""
    scene.deploy()

    assert scene.send(AFTER_THE_REPLY).wait(60) == -signal.SIGKILL
    check_done_once(scene)
    assert len(scene.executions()) == 1


def test_an_execution_without_a_record_is_adopted(scene: Scene) -> None:
    """The reconciler finds the execution of a dead caller before its container starts."""
    scene.deploy()
    scene.emulator.faults.cold_start(600, times=1)
    assert scene.send(AFTER_THE_REPLY).wait(60) == -signal.SIGKILL

    assert scene.reconcile() == {"sent": 1}
    assert [execution.name for execution in scene.executions()] == [JobRun.objects.get().execution_name]


@pytest.mark.parametrize("code", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL"])
def test_a_lost_reply_starts_nothing_twice(scene: Scene, code: str) -> None:
    """An execution that was started although the reply was an error is adopted."""
    scene.deploy()
    scene.emulator.faults.fail_after("Jobs.RunJob", code)
    sender = scene.send("print(Command().delay(number=1).result(timeout=60))")

    assert sender.communicate(timeout=60)[0].strip() == "{'number': 1}"
    check_done_once(scene)
    assert len(scene.executions()) == 1


def test_concurrent_reconcilers_send_once(scene: Scene) -> None:
    """One of two reconcilers dispatches a pending run."""
    scene.deploy()
    scene.send(IN_A_TRANSACTION).wait(60)
    JobRun.objects.update(sending_until="2026-01-01T00:00:00Z")
    reconcile = "from django.core.management import call_command; call_command('cloudrun_jobs', 'reconcile')"
    for process in [scene.send(reconcile) for _ in range(2)]:
        assert process.wait(60) == 0, process.communicate()

    check_done_once(scene)
    assert len(scene.executions()) == 1
