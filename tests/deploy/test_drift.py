"""Drift is computed for each job: the error of one does not hide the changes of the rest."""

from __future__ import annotations

from typing import Any

import pytest

from cloudrun_jobs.backends.cloudrun import CloudRunBackend
from cloudrun_jobs.deploy.drift import command_of, job_drift, schedule_drift
from cloudrun_jobs.deploy.plan import Existing
from cloudrun_jobs.management.selection import cloudrun_backend
from cloudrun_jobs.spec.ownership import OwnershipLabel
from tests.jobs.management.commands import echo, nightly, walk


@pytest.fixture
def backend(options: dict[str, Any]) -> CloudRunBackend:
    return cloudrun_backend()


def existing(name: str, command: str, environment: str = "production") -> Existing:
    return Existing(id=name, fields={}, ownership=OwnershipLabel(environment=environment, command=command))


def test_missing_jobs_are_created(backend: CloudRunBackend) -> None:
    """Each job that does not exist is a change of its command."""
    found = job_drift([echo.Command(), walk.Command()], [], backend)

    assert [change.action for change in found.plan.changes] == ["create", "create"]
    assert [command_of(change) for change in found.plan.changes] == ["echo", "walk"]


def test_orphan_belongs_to_its_command(backend: CloudRunBackend) -> None:
    """A Scheduler job that a command no longer declares is found under the command."""
    found = schedule_drift([echo.Command()], [existing("echo-production", "echo")], backend)

    assert [command_of(change) for change in found.plan.orphans] == ["echo"]


def test_error_of_one_job_leaves_the_others(backend: CloudRunBackend) -> None:
    """A job whose name belongs to another environment is an error; the other jobs are compared."""
    found = job_drift([echo.Command(), walk.Command()], [existing("echo-production", "echo", "staging")], backend)

    assert list(found.errors) == ["echo"]
    assert [change.id for change in found.plan.changes] == ["walk-production"]


def test_resources_of_a_job_with_an_error_are_no_orphans(
    backend: CloudRunBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The resources of a job with an error are not reported as orphans."""
    monkeypatch.setattr(nightly.Command, "schedule", "every so often")
    found = schedule_drift([nightly.Command()], [existing("nightly-production", "nightly")], backend)

    assert (list(found.errors), found.plan.orphans) == (["nightly"], ())


def test_duplicate_name_is_an_error_of_the_later_job(backend: CloudRunBackend) -> None:
    """If two jobs have the same name, the first is compared and the second is an error."""
    found = job_drift([echo.Command(), echo.Command()], [], backend)

    assert (list(found.errors), len(found.plan.changes)) == (["echo"], 1)
