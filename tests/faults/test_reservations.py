"""Runs that are reserved for a time: once, never early, and not a year later."""

from __future__ import annotations

import signal
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db.models.functions import Now

from cloudrun_jobs.models import JobRun, Status, Trigger
from tests.emulator.cloud import PLACE, eventually
from tests.faults.conftest import Scene
from tests.jobs.management.commands import echo

CALL = "from django.core.management import call_command\n"
AT = "from datetime import *; from django.db import transaction\n"


def reserve(scene: Scene, at: str = "timedelta(minutes=10)") -> JobRun:
    """Reserve a run, in a process of its own."""
    sender = scene.send(f"{AT}print(Command().reserve({at}, number=1).run_id)")
    out, err = sender.communicate(timeout=60)
    assert sender.returncode == 0, err
    return JobRun.objects.get(pk=out.strip())


def entries(scene: Scene) -> list[Any]:
    return list(scene.emulator.clients.scheduler.list_jobs(parent=PLACE))


def pass_by(scene: Scene, **time: int) -> None:
    """Let time pass in the cloud, and wait for what starts in it."""
    scene.emulator.clock.advance(timedelta(**time))
    scene.over()


def test_a_reserved_run_begins_at_its_time(scene: Scene) -> None:
    """Nothing starts before; then the run is done, and takes its entry with it."""
    scene.deploy()
    scene.emulator.clock.freeze()
    run = reserve(scene)
    assert (run.status, run.trigger, len(entries(scene))) == (Status.PENDING, Trigger.RESERVE, 1)

    pass_by(scene, minutes=9)
    assert scene.executions() == []

    pass_by(scene, minutes=3)
    run.refresh_from_db()
    assert (run.status, run.schedule, scene.journal()) != (Status.PENDING, None, [])
    assert (run.status, run.schedule, entries(scene)) == (Status.SUCCEEDED, None, [])


def test_seconds_round_up_to_the_minute(scene: Scene) -> None:
    """The entry is due in the first whole minute that is not before the time."""
    scene.deploy()
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=2)
    run = reserve(scene, f"datetime.fromisoformat({at.isoformat()!r})")

    assert timedelta() <= run.scheduled_for - at < timedelta(minutes=1)
    assert run.scheduled_for.second == 0


def test_a_reservation_delivered_twice_is_one_run(scene: Scene) -> None:
    """Both deliveries carry the run's id, and one of the executions has nothing to do."""
    scene.deploy()
    scene.emulator.clock.freeze()
    reserve(scene)
    scene.emulator.faults.double_delivery()
    pass_by(scene, minutes=12)
    eventually(lambda: len(scene.executions()) == 2)
    scene.over()

    assert (len(scene.executions()), len(scene.journal()), scene.statuses()) == (2, 1, [Status.SUCCEEDED])


def test_a_cancelled_reservation_is_deleted(scene: Scene) -> None:
    """Nothing is left that could start it."""
    scene.deploy()
    scene.emulator.clock.freeze()
    run = reserve(scene)
    script = f"from cloudrun_jobs.models import JobRun; assert JobRun.objects.get(pk='{run.pk}').cancel()"
    assert scene.send(script).wait(60) == 0
    pass_by(scene, days=2)

    run.refresh_from_db()
    assert (run.status, entries(scene), scene.executions()) == (Status.CANCELLED, [], [])


def test_methods_of_the_command_are_not_called(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Scheduler job of a cancelled run is deleted even if the command defines release() and operation()."""
    called: list[str] = []
    for name in ("release", "operation"):
        monkeypatch.setattr(echo.Command, name, lambda *args, name=name: called.append(name), raising=False)
    operation = echo.Command().reserve(timedelta(hours=1))
    assert len(entries(scene)) == 1

    assert operation.run.cancel()
    assert (operation.run.schedule, entries(scene), called) == (None, [], [])


def test_an_entry_that_outlives_its_cancellation(scene: Scene) -> None:
    """What it starts ends with status 0, without work, and deletes it."""
    scene.deploy()
    scene.emulator.clock.freeze()
    run = reserve(scene)
    run.transition(Status.CANCELLED)
    pass_by(scene, minutes=12)

    assert [execution.succeeded_count for execution in scene.executions()] == [1]
    assert (scene.journal(), scene.statuses(), entries(scene)) == ([], [Status.CANCELLED], [])


def test_a_year_late_is_too_late(scene: Scene) -> None:
    """An entry that was never deleted is due again in a year, and does nothing, with or without a record."""
    scene.deploy()
    scene.emulator.clock.freeze()
    run = reserve(scene)
    entry = entries(scene)[0]
    entry.http_target.body = entry.http_target.body.replace(str(run.scheduled_for.year).encode(), b"2001")
    scene.emulator.clients.scheduler.update_job(job=entry)
    JobRun.objects.all().delete()
    pass_by(scene, minutes=12)

    assert [execution.succeeded_count for execution in scene.executions()] == [1]
    assert (scene.journal(), scene.statuses()) == ([], [])


def test_a_rolled_back_reservation_never_was(scene: Scene) -> None:
    """It is part of the caller's transaction."""
    scene.deploy()
    script = """
try:
    with transaction.atomic():
        Command().reserve(timedelta(minutes=10), number=1)
        raise LookupError
except LookupError:
    pass
"""
    assert scene.send(AT + script).wait(60) == 0
    assert (scene.statuses(), entries(scene)) == ([], [])


def test_killed_before_the_entry_was_made(scene: Scene) -> None:
    """Who looks after the runs makes the entry; of a time that has come meanwhile, it sends the run."""
    scene.deploy()
    script = f"""
with transaction.atomic():
    transaction.on_commit(lambda: os.kill(os.getpid(), {int(signal.SIGKILL)}))
    Command().reserve(timedelta(minutes=10), number=1)
"""
    assert scene.send(AT + script).wait(60) == -signal.SIGKILL
    assert (scene.statuses(), entries(scene)) == ([Status.PENDING], [])

    assert scene.look_after() == {"reserved": 1}
    assert len(entries(scene)) == 1


def test_a_time_that_passed_before_the_entry_was_made(scene: Scene) -> None:
    """The run is sent at once: late is better than never."""
    scene.deploy()
    run = reserve(scene)
    JobRun.objects.update(schedule=None, scheduled_for=Now() - timedelta(hours=1))

    assert scene.look_after() == {"sent": 1}
    scene.over()
    run.refresh_from_db()
    assert run.status == Status.SUCCEEDED


def test_a_reservation_that_never_started_is_lost(scene: Scene) -> None:
    """A day after its time it is given up, and its entry deleted."""
    scene.deploy()
    run = reserve(scene)
    JobRun.objects.update(scheduled_for=Now() - timedelta(hours=25))
    scene.look_after()

    run.refresh_from_db()
    assert (run.status, run.reason, entries(scene)) == (Status.LOST, "never_started", [])


def test_an_answer_that_is_lost_makes_one_entry(scene: Scene) -> None:
    """The entry's name is the run's: asked for again, it is the same."""
    scene.deploy()
    scene.emulator.faults.fail_after("CloudScheduler.CreateJob", "UNAVAILABLE")
    run = reserve(scene)

    assert [entry.name.rpartition("/")[2] for entry in entries(scene)] == [run.schedule]
    assert scene.look_after() == {}


def test_reservations_are_listed(scene: Scene) -> None:
    """`cloudrun_jobs reservations` shows what waits for its time."""
    scene.deploy()
    run = reserve(scene)
    out, err = scene.send(CALL + "call_command('cloudrun_jobs', 'reservations')").communicate(timeout=60)

    assert (str(run.pk) in out, "work" in out, err) == (True, True, "")


def test_a_tick_that_arrives_twice_is_one_run(scene: Scene) -> None:
    """Of two executions that one tick started, one does the work; the next tick is a run again."""
    scene.deploy()
    syncing = scene.send(CALL + "call_command('sync_cloudrun_schedules')")
    assert syncing.wait(60) == 0, syncing.communicate()
    scene.emulator.faults.double_delivery()
    scene.emulator.clients.scheduler.run_job(name=entries(scene)[0].name)
    eventually(lambda: len(scene.executions()) == 2)
    scene.over()
    again = JobRun.objects.get(status=Status.SKIPPED)

    assert (again.reason, len(scene.executions()), len(scene.journal())) == ("same_tick", 2, 1)
    assert scene.statuses() == [Status.SKIPPED, Status.SUCCEEDED]
    assert set(JobRun.objects.values_list("trigger", flat=True)) == {Trigger.SCHEDULE}


def test_a_start_at_the_console_is_a_run_of_its_own(scene: Scene) -> None:
    """Whoever starts the job by hand gets what they asked for, each time."""
    scene.deploy()
    name = f"{PLACE}/jobs/work-production"
    args = {"container_overrides": [{"args": ["work"]}]}
    for _ in range(2):
        scene.emulator.clients.jobs.run_job({"name": name, "overrides": args}).result(timeout=60)

    assert scene.statuses() == [Status.SUCCEEDED] * 2
    assert set(JobRun.objects.values_list("trigger", flat=True)) == {Trigger.MANUAL}
