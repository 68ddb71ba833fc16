"""Reserved runs start once, never early, and not a year later."""

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

pytestmark = pytest.mark.faults

CALL = "from django.core.management import call_command\n"
AT = "from datetime import *; from django.db import transaction\n"


def reserve(scene: Scene, at: str = "timedelta(minutes=10)") -> JobRun:
    """Reserve a run in another process."""
    sender = scene.send(f"{AT}print(Command().reserve({at}, number=1).run_id)")
    out, err = sender.communicate(timeout=60)
    assert sender.returncode == 0, err
    return JobRun.objects.get(pk=out.strip())


def scheduler_jobs(scene: Scene) -> list[Any]:
    return list(scene.emulator.clients.scheduler.list_jobs(parent=PLACE))


def advance(scene: Scene, **time: int) -> None:
    """Advance the emulator's clock, and wait for the executions that start."""
    scene.emulator.clock.advance(timedelta(**time))
    scene.over()


def test_a_reserved_run_starts_at_its_time(scene: Scene) -> None:
    """The run starts at its time, and its Scheduler job is deleted."""
    scene.deploy()
    scene.emulator.clock.freeze()
    run = reserve(scene)
    assert (run.status, run.trigger, len(scheduler_jobs(scene))) == (Status.PENDING, Trigger.RESERVE, 1)

    advance(scene, minutes=9)
    assert scene.executions() == []

    advance(scene, minutes=3)
    run.refresh_from_db()
    assert (run.status, run.schedule, scene.journal()) != (Status.PENDING, None, [])
    assert (run.status, run.schedule, scheduler_jobs(scene)) == (Status.SUCCEEDED, None, [])


def test_seconds_round_up_to_the_minute(scene: Scene) -> None:
    """The Scheduler job is due in the first whole minute that is not before the time."""
    scene.deploy()
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=2)
    run = reserve(scene, f"datetime.fromisoformat({at.isoformat()!r})")

    assert timedelta() <= run.scheduled_for - at < timedelta(minutes=1)
    assert run.scheduled_for.second == 0


def test_a_reservation_delivered_twice_runs_once(scene: Scene) -> None:
    """Two executions carry the run's id, and one of them is superseded."""
    scene.deploy()
    scene.emulator.clock.freeze()
    reserve(scene)
    scene.emulator.faults.double_delivery()
    advance(scene, minutes=12)
    eventually(lambda: len(scene.executions()) == 2)
    scene.over()

    assert (len(scene.executions()), len(scene.journal()), scene.statuses()) == (2, 1, [Status.SUCCEEDED])


def test_a_cancelled_reservation_is_deleted(scene: Scene) -> None:
    """cancel() deletes the Scheduler job."""
    scene.deploy()
    scene.emulator.clock.freeze()
    run = reserve(scene)
    script = f"from cloudrun_jobs.models import JobRun; assert JobRun.objects.get(pk='{run.pk}').cancel()"
    assert scene.send(script).wait(60) == 0
    advance(scene, days=2)

    run.refresh_from_db()
    assert (run.status, scheduler_jobs(scene), scene.executions()) == (Status.CANCELLED, [], [])


def test_methods_of_the_command_are_not_called(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Scheduler job of a cancelled run is deleted even if the command defines release() and operation()."""
    called: list[str] = []
    for name in ("release", "operation"):
        monkeypatch.setattr(echo.Command, name, lambda *args, name=name: called.append(name), raising=False)
    operation = echo.Command().reserve(timedelta(hours=1))
    assert len(scheduler_jobs(scene)) == 1

    assert operation.run.cancel()
    assert (operation.run.schedule, scheduler_jobs(scene), called) == (None, [], [])


def test_a_scheduler_job_that_outlives_its_cancellation(scene: Scene) -> None:
    """Its execution exits with status 0 without work, and deletes it."""
    scene.deploy()
    scene.emulator.clock.freeze()
    run = reserve(scene)
    run.transition(Status.CANCELLED)
    advance(scene, minutes=12)

    assert [execution.succeeded_count for execution in scene.executions()] == [1]
    assert (scene.journal(), scene.statuses(), scheduler_jobs(scene)) == ([], [Status.CANCELLED], [])


def test_a_reservation_does_not_start_a_year_late(scene: Scene) -> None:
    """A Scheduler job that was never deleted is due again in a year, and does no work."""
    scene.deploy()
    scene.emulator.clock.freeze()
    run = reserve(scene)
    scheduler_job = scheduler_jobs(scene)[0]
    scheduler_job.http_target.body = scheduler_job.http_target.body.replace(
        str(run.scheduled_for.year).encode(), b"2001"
    )
    scene.emulator.clients.scheduler.update_job(job=scheduler_job)
    JobRun.objects.all().delete()
    advance(scene, minutes=12)

    assert [execution.succeeded_count for execution in scene.executions()] == [1]
    assert (scene.journal(), scene.statuses()) == ([], [])


def test_a_rolled_back_reservation_is_not_made(scene: Scene) -> None:
    """After a rollback there is neither a record nor a Scheduler job."""
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
    assert (scene.statuses(), scheduler_jobs(scene)) == ([], [])


def test_killed_before_the_reservation(scene: Scene) -> None:
    """The reconciler creates the missing Scheduler job."""
    scene.deploy()
    script = f"""
with transaction.atomic():
    transaction.on_commit(lambda: os.kill(os.getpid(), {int(signal.SIGKILL)}))
    Command().reserve(timedelta(minutes=10), number=1)
"""
    assert scene.send(AT + script).wait(60) == -signal.SIGKILL
    assert (scene.statuses(), scheduler_jobs(scene)) == ([Status.PENDING], [])

    assert scene.reconcile() == {"reserved": 1}
    assert len(scheduler_jobs(scene)) == 1


def test_a_missing_reservation_that_is_due_is_dispatched(scene: Scene) -> None:
    """The reconciler dispatches a run whose time has passed without a reservation."""
    scene.deploy()
    run = reserve(scene)
    JobRun.objects.update(schedule=None, scheduled_for=Now() - timedelta(hours=1))

    assert scene.reconcile() == {"sent": 1}
    scene.over()
    run.refresh_from_db()
    assert run.status == Status.SUCCEEDED


def test_a_reservation_that_never_started_is_lost(scene: Scene) -> None:
    """A day after its time the run is marked as lost, and its Scheduler job deleted."""
    scene.deploy()
    run = reserve(scene)
    JobRun.objects.update(scheduled_for=Now() - timedelta(hours=25))
    scene.reconcile()

    run.refresh_from_db()
    assert (run.status, run.reason, scheduler_jobs(scene)) == (Status.LOST, "never_started", [])


def test_a_lost_reply_makes_one_scheduler_job(scene: Scene) -> None:
    """The Scheduler job is named after the run, so a repeated request creates no other."""
    scene.deploy()
    scene.emulator.faults.fail_after("CloudScheduler.CreateJob", "UNAVAILABLE")
    run = reserve(scene)

    assert [job.name.rpartition("/")[2] for job in scheduler_jobs(scene)] == [run.schedule]
    assert scene.reconcile() == {}


def test_reservations_are_listed(scene: Scene) -> None:
    """`cloudrun_jobs reservations` shows pending reservations."""
    scene.deploy()
    run = reserve(scene)
    out, err = scene.send(CALL + "call_command('cloudrun_jobs', 'reservations')").communicate(timeout=60)

    assert (str(run.pk) in out, "work" in out) == (True, True)
    assert err == "`manage.py cloudrun_jobs cancel RUN` cancels a reserved run.\n"


def test_a_tick_delivered_twice_runs_once(scene: Scene) -> None:
    """Of two executions of one tick, one does the work and one is skipped."""
    scene.deploy()
    syncing = scene.send(CALL + "call_command('sync_cloudrun_schedules')")
    assert syncing.wait(60) == 0, syncing.communicate()
    scene.emulator.faults.double_delivery()
    scene.emulator.clients.scheduler.run_job(name=scheduler_jobs(scene)[0].name)
    eventually(lambda: len(scene.executions()) == 2)
    scene.over()
    again = JobRun.objects.get(status=Status.SKIPPED)

    assert (again.reason, len(scene.executions()), len(scene.journal())) == ("same_tick", 2, 1)
    assert scene.statuses() == [Status.SKIPPED, Status.SUCCEEDED]
    assert set(JobRun.objects.values_list("trigger", flat=True)) == {Trigger.SCHEDULE}


def test_each_manual_execution_is_a_run(scene: Scene) -> None:
    """Each execution that is started in the console does the work."""
    scene.deploy()
    name = f"{PLACE}/jobs/work-production"
    args = {"container_overrides": [{"args": ["work"]}]}
    for _ in range(2):
        scene.emulator.clients.jobs.run_job({"name": name, "overrides": args}).result(timeout=60)

    assert scene.statuses() == [Status.SUCCEEDED] * 2
    assert set(JobRun.objects.values_list("trigger", flat=True)) == {Trigger.MANUAL}
