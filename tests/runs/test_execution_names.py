"""Execution names that Cloud Run reuses."""

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
    """Return the run of an execution that ended two hours ago."""
    return _ended(ago=timedelta(hours=2))


def _ended(*, ago: timedelta, execution: str = EXECUTION) -> JobRun:
    full = f"projects/p/locations/l/jobs/echo-test/executions/{execution}"
    return request(status=Status.SUCCEEDED, execution=execution, execution_name=full, finished_at=Now() - ago)


def test_an_unrequested_execution_gets_a_reused_name(earlier: JobRun, container: Container) -> None:
    """The new run gets the name, and the earlier run keeps everything else."""
    assert container.run("echo") == 0

    assert JobRun.objects.get(execution=EXECUTION).pk != earlier.pk
    earlier.refresh_from_db()
    assert (earlier.status, earlier.execution, earlier.execution_name) == (Status.SUCCEEDED, None, "")


@pytest.mark.parametrize("is_recorded", [True, False])
def test_a_requested_run_gets_a_reused_name(earlier: JobRun, container: Container, is_recorded: bool) -> None:
    """A requested run gets the name, whether its record exists or is recreated."""
    run_id = str(request().pk) if is_recorded else some_id()

    assert container.run("echo", run_id=run_id) == 0

    run = JobRun.objects.get(pk=run_id)
    assert (run.status, run.execution) == (Status.SUCCEEDED, EXECUTION)


def test_the_dispatcher_records_a_reused_name(cloud: CloudRun) -> None:
    """The dispatched run gets the name of the earlier run."""
    _ended(ago=timedelta(hours=2), execution="echo-production-abcde")
    run = echo.Command().delay().run

    assert (run.status, run.execution) == (Status.SENT, "echo-production-abcde")


def test_a_run_that_has_just_ended_keeps_its_name(container: Container) -> None:
    """A late container of its execution is superseded."""
    latest = _ended(ago=timedelta(minutes=1))

    assert container.run("echo") == 0

    assert JobRun.objects.get().pk == latest.pk


def test_empty_execution_name_is_ignored() -> None:
    """The handle on a run that was never dispatched has no execution name."""
    run = request()
    record_dispatched(run, SimpleNamespace(execution_name=""))

    run.refresh_from_db()
    assert (run.status, run.execution) == (Status.PENDING, None)


def test_two_unfinished_runs_never_share_a_name(cloud: CloudRun) -> None:
    """A conflict of names is signalled, and the first run keeps its name."""
    errors: list[Any] = []
    run_record_failed.connect(
        lambda sender, **values: errors.append(values["error"]), weak=False, dispatch_uid="errors"
    )
    first = request(status=Status.RUNNING, execution="echo-production-abcde")
    echo.Command().delay()
    run_record_failed.disconnect(dispatch_uid="errors")

    assert len(errors) == 1
    assert JobRun.objects.get(execution="echo-production-abcde").pk == first.pk
