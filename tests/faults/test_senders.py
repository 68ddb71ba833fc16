"""Who asks for a run dies on the way: it is done once, and the record says so."""

from __future__ import annotations

import signal

import pytest

from cloudrun_jobs.models import JobRun, Status
from tests.emulator.cloud import eventually
from tests.faults.conftest import Scene

DIE = "os.kill(os.getpid(), signal.SIGKILL)"

IN_A_TRANSACTION = f"""
from django.db import transaction
with transaction.atomic():
    transaction.on_commit(lambda: {DIE})
    Command().delay(number=1)
"""
AFTER_THE_ANSWER = f"""
from cloudrun_jobs.models import JobRun
JobRun.mark_sent = lambda run, operation: {DIE}
Command().delay(number=1)
"""


def check_done_once(scene: Scene) -> None:
    scene.over()
    scene.look_after()
    scene.over()
    assert [line.split()[0] for line in scene.journal()] == ["1"]
    assert scene.statuses() == [Status.SUCCEEDED]
    assert JobRun.objects.get().result == {"number": 1}


def test_killed_between_the_row_and_the_request(scene: Scene) -> None:
    """A run that was committed and not sent is sent by who looks after it."""
    scene.deploy()

    assert scene.send(IN_A_TRANSACTION).wait(60) == -signal.SIGKILL
    assert (scene.statuses(), scene.executions()) == ([Status.PENDING], [])
    assert scene.look_after() == {"sent": 1}
    check_done_once(scene)


def test_killed_between_the_request_and_its_answer(scene: Scene) -> None:
    """An execution that nobody recorded claims its run itself."""
    scene.deploy()
    scene.emulator.faults.delay("Jobs.RunJob", 30, times=1)
    sender = scene.send("Command().delay(number=1)")
    eventually(scene.executions)
    sender.kill()

    check_done_once(scene)
    assert len(scene.executions()) == 1


def test_killed_between_the_answer_and_its_record(scene: Scene) -> None:
    """That the answer was not written down is made good by the execution's own claim."""
    scene.deploy()

    assert scene.send(AFTER_THE_ANSWER).wait(60) == -signal.SIGKILL
    check_done_once(scene)
    assert len(scene.executions()) == 1


def test_an_execution_without_a_record_is_adopted(scene: Scene) -> None:
    """Who looks after an unsent run finds the execution that a dead sender started, before it has begun."""
    scene.deploy()
    scene.emulator.faults.cold_start(600, times=1)
    assert scene.send(AFTER_THE_ANSWER).wait(60) == -signal.SIGKILL

    assert scene.look_after() == {"sent": 1}
    assert [execution.name for execution in scene.executions()] == [JobRun.objects.get().execution_name]


@pytest.mark.parametrize("code", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL"])
def test_a_lost_answer_starts_nothing_twice(scene: Scene, code: str) -> None:
    """The execution that was started although the answer was an error is found and taken."""
    scene.deploy()
    scene.emulator.faults.fail_after("Jobs.RunJob", code)
    sender = scene.send("print(Command().delay(number=1).result(timeout=60))")

    assert sender.communicate(timeout=60)[0].strip() == "{'number': 1}"
    check_done_once(scene)
    assert len(scene.executions()) == 1


def test_two_who_look_after_runs_do_no_harm(scene: Scene) -> None:
    """An unsent run is sent by one of them."""
    scene.deploy()
    scene.send(IN_A_TRANSACTION).wait(60)
    JobRun.objects.update(sending_until="2026-01-01T00:00:00Z")
    reconcile = "from django.core.management import call_command; call_command('cloudrun_jobs', 'reconcile')"
    for process in [scene.send(reconcile) for _ in range(2)]:
        assert process.wait(60) == 0, process.communicate()

    check_done_once(scene)
    assert len(scene.executions()) == 1
