"""A queue worker records the death of a process, a revocation, and a command that no worker knows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from cloudrun_jobs.execution.delivery import receive
from cloudrun_jobs.execution.supervision import Death, fail_unknown_command, record_death, record_revocation
from cloudrun_jobs.models import JobRun, Status, TaskRun
from cloudrun_jobs.models.functions import Now
from tests.execution.test_delivery import OTHER, WORKER, began, database, new_run, silence, work
from tests.runs.conftest import in_every_database

__all__ = ["database"]

DEATH = Death(OTHER, "process_died", "signal 9")
LONG_AGO = timedelta(minutes=61)


def reloaded(run: JobRun) -> JobRun:
    return JobRun.objects.get(pk=run.pk)


@in_every_database
def test_another_attempt_follows_a_death_at_once() -> None:
    """The dead process has the heartbeat of a live one; its recorded death makes the next delivery due."""
    run = new_run("echo")
    began(run)
    assert not receive(reloaded(run), 0, WORKER).is_due

    assert record_death(str(run.pk), 0, DEATH)

    assert receive(reloaded(run), 0, WORKER).is_due
    task = run.tasks.get()
    assert (task.exit_code, task.reason, task.interruptions) == (137, "process_died", 0)
    assert task.error_message == f"The process {OTHER} has ended: signal 9"


@in_every_database
def test_a_death_by_shutdown_is_an_interruption() -> None:
    """It does not count against `max_retries`."""
    run = new_run("echo")
    began(run)

    record_death(str(run.pk), 0, DEATH._replace(reason="interrupted"))

    assert run.tasks.get().interruptions == 1


@pytest.mark.parametrize("values", [{"exit_code": 1}, {"status": Status.SUCCEEDED}])
def test_the_death_of_an_ended_attempt_changes_nothing(values: dict[str, Any]) -> None:
    """A process may die after it has recorded its outcome."""
    run = new_run("echo")
    began(run, **values)
    before = TaskRun.objects.values().get(run=run)

    assert record_death(str(run.pk), 0, DEATH)

    assert TaskRun.objects.values().get(run=run) == before


def test_the_death_of_another_process_changes_nothing() -> None:
    """The attempt is that of another worker."""
    run = new_run("echo")
    began(run)

    assert not record_death(str(run.pk), 0, DEATH._replace(process=WORKER))


def test_the_death_of_a_reducer_frees_the_reduction() -> None:
    """The next delivery may call `reduce()`."""
    run = new_run("echo")
    began(run)
    JobRun.objects.filter(pk=run.pk).update(reducer=run.tasks.get().worker)

    assert record_death(str(run.pk), None, DEATH)

    assert reloaded(run).reducer is None


@in_every_database
def test_a_revoked_run_that_waits_is_cancelled() -> None:
    """No worker will start it: its message is gone."""
    run = new_run("echo")

    record_revocation(str(run.pk))

    run = reloaded(run)
    assert (run.status, run.reason, run.cancelled_count) == (Status.CANCELLED, "cancelled", 1)


def test_a_revoked_run_that_works_ends_itself() -> None:
    """Its process gets SIGTERM, and records the outcome."""
    run = new_run("echo")
    began(run)

    record_revocation(str(run.pk))

    run = reloaded(run)
    assert (run.status, run.cancel_requested_at is None) == (Status.RUNNING, False)


def test_a_revoked_run_whose_process_is_dead_is_cancelled() -> None:
    """Nothing else would end it."""
    run = new_run("echo")
    began(run)
    record_death(str(run.pk), 0, DEATH)

    record_revocation(str(run.pk))

    assert (reloaded(run).status, run.tasks.get().status) == (Status.CANCELLED, Status.CANCELLED)


def test_a_revocation_after_the_end_changes_nothing() -> None:
    """The run has succeeded."""
    run = new_run("echo")
    work(run)

    record_revocation(str(run.pk))

    assert reloaded(run).status == Status.SUCCEEDED


@in_every_database
def test_an_unknown_command_fails_after_an_hour() -> None:
    """Until then a worker of a newer deployment may know it, and the record shows why the run waits."""
    run = new_run("echo", sent_at=Now() - LONG_AGO)
    assert not fail_unknown_command(run, "no such job")
    assert not fail_unknown_command(run, "no such job")
    assert (reloaded(run).status, reloaded(run).reason) == (Status.SENT, "unknown_command")
    JobRun.objects.filter(pk=run.pk).update(sending_until=Now() - LONG_AGO)

    assert fail_unknown_command(reloaded(run), "no such job")

    run = reloaded(run)
    assert (run.status, run.reason, run.error_message) == (Status.FAILED, "unknown_command", "no such job")


def test_an_unknown_command_that_another_worker_runs_does_not_fail() -> None:
    """This worker got a duplicate message of it."""
    run = new_run("echo", sent_at=Now() - LONG_AGO)
    began(run)
    assert not fail_unknown_command(reloaded(run), "no such job")

    silence(run)
    JobRun.objects.filter(pk=run.pk).update(reason="unknown_command", sending_until=Now() - LONG_AGO)

    assert fail_unknown_command(reloaded(run), "no such job")
    assert TaskRun.objects.get(run=run).status == Status.FAILED
