"""Names of executions that Cloud Run gives again: the later execution is not taken for the earlier one."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.runs.dispatch import record_dispatched
from cloudrun_jobs.signals import run_record_failed
from tests.backends.server import CloudRun
from tests.jobs.management.commands import echo
from tests.runs.conftest import EXECUTION, Container, request, some_id


@pytest.fixture
def earlier() -> JobRun:
    """The run of an execution that ended some time ago."""
    return _ended(ago=timedelta(hours=2))


def _ended(*, ago: timedelta, execution: str = EXECUTION) -> JobRun:
    full = f"projects/p/locations/l/jobs/echo-test/executions/{execution}"
    return request(status=Status.SUCCEEDED, execution=execution, execution_name=full, finished_at=Now() - ago)


def test_a_start_that_nobody_asked_for_is_a_run_of_its_own(earlier: JobRun, container: Container) -> None:
    """It works, and has the name; the earlier run keeps all but that, and does not lead to the later execution."""
    assert container.run("echo") == 0

    assert JobRun.objects.get(execution=EXECUTION).pk != earlier.pk
    earlier.refresh_from_db()
    assert (earlier.status, earlier.execution, earlier.execution_name) == (Status.SUCCEEDED, None, "")


@pytest.mark.parametrize("is_recorded", [True, False])
def test_a_run_that_was_asked_for_is_done(earlier: JobRun, container: Container, is_recorded: bool) -> None:
    """Whether its record is there, or was lost."""
    run_id = str(request().pk) if is_recorded else some_id()

    assert container.run("echo", run_id=run_id) == 0

    run = JobRun.objects.get(pk=run_id)
    assert (run.status, run.execution) == (Status.SUCCEEDED, EXECUTION)


def test_the_sender_notes_the_name_too(cloud: CloudRun) -> None:
    """Its answer would else not be written, and the run be looked for again and again."""
    _ended(ago=timedelta(hours=2), execution="echo-production-abcde")
    run = echo.Command().delay().run

    assert (run.status, run.execution) == (Status.SENT, "echo-production-abcde")


def test_the_name_of_a_run_that_ended_just_now_is_its_own(container: Container) -> None:
    """A container of its execution that comes late steps aside."""
    latest = _ended(ago=timedelta(minutes=1))

    assert container.run("echo") == 0

    assert JobRun.objects.get().pk == latest.pk


def test_no_name_is_no_name() -> None:
    """The handle on a run that was cancelled in time names no execution."""
    run = request()
    record_dispatched(run, SimpleNamespace(execution_name=""))

    run.refresh_from_db()
    assert (run.status, run.execution) == (Status.PENDING, None)


def test_two_runs_under_way_never_have_one_name(cloud: CloudRun) -> None:
    """That would be a fault of ours; it is told, and neither loses what it has."""
    told: list[Any] = []
    run_record_failed.connect(
        lambda sender, **values: told.append(values["error"]), weak=False, dispatch_uid="told"
    )
    first = request(status=Status.RUNNING, execution="echo-production-abcde")
    echo.Command().delay()
    run_record_failed.disconnect(dispatch_uid="told")

    assert len(told) == 1
    assert JobRun.objects.get(execution="echo-production-abcde").pk == first.pk
