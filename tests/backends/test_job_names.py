"""Runs of jobs with a declared name, or with Python alone as their entrypoint, reach Cloud Run as declared."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone

from cloudrun_jobs import backends
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.runs.reconcile import reconcile
from tests.backends.server import CloudRun
from tests.jobs.management.commands import echo

pytestmark = pytest.mark.django_db(transaction=True)

JOBS = "projects/acme/locations/asia-northeast1/jobs"


def last(cloud_run: CloudRun) -> tuple[str, list[str]]:
    """Return the job and the arguments of the last request."""
    request = cloud_run.requests[-1]
    return request.name, list(request.overrides.container_overrides[0].args)


@pytest.fixture
def _adopted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(echo.Command, "job_name", {"production": "console-job"}, raising=False)
    monkeypatch.setattr(echo.Command, "entrypoint", ["python"], raising=False)


START: dict[str, Any] = {
    "delay": lambda command: command.delay(partner=7),
    "delay_argv": lambda command: command.delay_argv(["--partner=7"]),
    "using": lambda command: command.using(timeout=60).delay(partner=7),
}


@pytest.mark.usefixtures("_adopted")
@pytest.mark.parametrize("start", START.values(), ids=START)
def test_request_has_the_declared_name_and_the_script(cloud_run: CloudRun, start: Any) -> None:
    """The record has the arguments after `manage.py`."""
    start(echo.Command())

    assert last(cloud_run) == (f"{JOBS}/console-job", ["manage.py", "echo", "--partner=7"])
    run = JobRun.objects.get()
    assert (run.job, run.argv) == ("console-job", ["echo", "--partner=7"])


@pytest.mark.usefixtures("_adopted")
def test_each_element_has_the_script(cloud_run: CloudRun) -> None:
    """The containers of `delay_many()` get it too."""
    echo.Command().delay_many([{"partner": 7}, {"partner": 8}])

    assert last(cloud_run) == (f"{JOBS}/console-job", ["manage.py", "echo"])


@pytest.mark.usefixtures("_adopted")
def test_run_is_dispatched_again_without_its_command(cloud_run: CloudRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """`reconcile` takes both from the record: the command may have been removed."""
    echo.Command().delay(partner=7)
    monkeypatch.undo()
    JobRun.objects.update(status=Status.PENDING, execution=None, execution_name="", sent_at=None)
    cloud_run.requests.clear()
    cloud_run.started.clear()
    JobRun.objects.update(sending_until=timezone.now() - timedelta(hours=1))
    reconcile(backends.current())

    assert last(cloud_run) == (f"{JOBS}/console-job", ["manage.py", "echo", "--partner=7"])


@pytest.mark.usefixtures("_adopted")
def test_container_records_the_declared_name(
    settings: Any, monkeypatch: pytest.MonkeyPatch, db: None, cloud_run: CloudRun
) -> None:
    """An execution that was started at the console can be followed and cancelled."""
    monkeypatch.setenv("CLOUD_RUN_JOB", "console-job")
    monkeypatch.setenv("CLOUD_RUN_EXECUTION", "console-job-x7k2p")
    call_command("echo", "--partner=7")

    run = JobRun.objects.get()
    assert (run.job, run.script) == ("console-job", "manage.py")
    assert run.execution_name == f"{JOBS}/console-job/executions/console-job-x7k2p"


def test_undeclared_name_is_not_recorded(cloud_run: CloudRun) -> None:
    """The name follows from command and environment."""
    echo.Command().delay()

    run = JobRun.objects.get()
    assert (run.job_name, run.script, run.job) == ("", "", "echo-production")
    assert last(cloud_run) == (f"{JOBS}/echo-production", ["echo"])
