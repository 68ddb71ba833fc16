"""`cloudrun_jobs list`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from cloudrun_jobs import CloudRunJobs, Schedule
from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.management.subcommands.list import IMPORT_HINT
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.registry import FoundJobs
from tests.deploy.commands import PLACE, sync
from tests.management.cli import Cli

Declare = Callable[..., list[CloudRunJobs]]


@pytest.fixture
def declare(monkeypatch: pytest.MonkeyPatch) -> Declare:
    """Replace the project's jobs by these, given their attributes by name."""

    def declare(**attributes: dict[str, Any]) -> list[CloudRunJobs]:
        jobs = {name: _job(name, each) for name, each in attributes.items()}
        for module in ("deploy.listing", "management.selection"):
            monkeypatch.setattr(f"cloudrun_jobs.{module}.find_jobs", lambda: FoundJobs(jobs))
        return [*jobs.values()]

    return declare


def _job(name: str, attributes: dict[str, Any]) -> CloudRunJobs:
    module = f"shop.management.commands.{name}"
    values = {"run": lambda self, *args, **options: None, "__module__": module, "image": "app:1", **attributes}
    command: type[CloudRunJobs] = type("Command", (CloudRunJobs,), values)
    return command()


def synced(emulator: Emulator) -> None:
    sync("sync_cloudrun_jobs", emulator)
    sync("sync_cloudrun_schedules", emulator)
    emulator.calls.clear()


NIGHTLY = {"schedule": "0 3 * * *"}


def test_two_hundred_jobs_take_two_calls_and_few_queries(
    cli: Cli,
    options: dict[str, Any],
    emulator: Emulator,
    declare: Declare,
    django_assert_max_num_queries: Callable[[int], CaptureQueriesContext],
) -> None:
    """One list for the jobs and one for the schedules, and at most 6 queries."""
    declare(**{f"job_{number}": NIGHTLY for number in range(200)})

    with django_assert_max_num_queries(6):
        typed = cli("list")

    assert (typed.status, len(typed.lines)) == (0, 201)
    assert emulator.calls == {"Jobs.ListJobs": 1, "CloudScheduler.ListJobs": 1}


def test_states(cli: Cli, options: dict[str, Any], emulator: Emulator, declare: Declare) -> None:
    """Each job shows its schedule, its last run, and whatever is unusual."""
    weekly = {"schedule": "0 9 * * 1", "time_zone": "Asia/Seoul"}
    declare(nightly=NIGHTLY, weekly=weekly, gone={}, plain={})
    synced(emulator)
    declare(nightly={**NIGHTLY, "timeout": 7}, weekly={**weekly, "schedule": "0 9 * * 2"}, plain={})
    emulator.clients.scheduler.pause_job(name=f"{PLACE}/jobs/weekly-production")
    tick = {"schedule": "nightly-production", "scheduled_for": timezone.now() - timedelta(days=3)}
    run = JobRun.objects.create(
        command="nightly", environment="production", trigger="schedule", status=Status.FAILED, **tick
    )
    JobRun.objects.create(
        command="nightly",
        environment="production",
        trigger="delay",
        status=Status.SUCCEEDED,
        created_at=run.created_at - timedelta(days=1),
    )
    elsewhere = JobRun.objects.create(command="nightly", environment="staging", trigger="delay")

    typed = cli("list")
    nightly, second, plain = (line.split("  ") for line in typed.lines[1:])

    assert typed.status == 0
    assert [cell.strip() for cell in plain if cell] == ["plain", "-", "-", "-"]
    assert "0 9 * * 2 Asia/Seoul" in typed.lines[2]
    assert second[-1].strip() == "paused; schedule: schedule"
    assert "failed" in " ".join(nightly)
    assert "overdue since" in nightly[-1]
    assert nightly[-1].endswith("; job: timeout")
    assert "No command declares gone-production. The sync commands delete them with --prune." in typed.err
    assert typed.err.splitlines()[-1].startswith("Times are in Asia/Tokyo. 3 differences between the code and the")

    data = cli("list", "--json").data
    assert (data["orphans"], data["errors"]) == (["gone-production"], [])
    found = {job["command"]: job for job in data["jobs"]}
    assert (found["weekly"]["schedules"][0]["paused"], found["weekly"]["schedules"][0]["next_due"] is None) == (
        True,
        False,
    )
    assert (found["nightly"]["last_run"]["id"], found["nightly"]["drift"]) == (str(run.pk), ["job: timeout"])
    assert str(elsewhere.pk) not in cli("show", "nightly", "--json").out


def test_several_schedules_in_a_narrow_terminal(
    cli: Cli, options: dict[str, Any], declare: Declare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of schedules stays, and the long name is cut first."""
    two = [Schedule("0 3 * * *", time_zone="Asia/Seoul"), Schedule("0 9 * * *", name="late")]
    declare(a_job_with_a_name_that_is_very_long={"schedule": two}, b=NIGHTLY)
    monkeypatch.setattr("cloudrun_jobs.management.output.width_of", lambda stream: 80)
    narrow = cli("list").lines[1]

    assert narrow.startswith("a_job_with_a_name_that…  (+1) 0 3 * …")
    assert narrow.endswith("…")


def test_each_difference_is_counted(cli: Cli, options: dict[str, Any], declare: Declare) -> None:
    """A job that has not been deployed, with its two schedules."""
    declare(nightly={"schedule": [Schedule("0 3 * * *"), Schedule("0 9 * * *", name="late")]})
    typed = cli("list")

    assert typed.lines[1].endswith("job missing; schedule missing (2)")
    assert "3 differences between" in typed.err


def test_command_that_cannot_be_imported_stops_the_syncs(
    cli: Cli, options: dict[str, Any], declare: Declare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hint does not name commands that would change nothing; the JSON names the error."""
    found = FoundJobs({job.command_name: job for job in declare(b=NIGHTLY)}, {"broken": ImportError("no")})
    monkeypatch.setattr("cloudrun_jobs.deploy.listing.find_jobs", lambda: found)

    assert cli("list").err.splitlines()[-1].endswith(f"the code and the cloud. {IMPORT_HINT}")
    data = cli("list", "--json").data
    assert (data["import_errors"], data["jobs"][0]["problems"]) == ({"broken": "ImportError: no"}, [])


def test_reserved_run_has_its_id(cli: Cli) -> None:
    """Under the name that all other lists give it."""
    run = JobRun.objects.create(
        command="echo", environment="test", trigger="reserve", scheduled_for=timezone.now()
    )

    assert [each["id"] for each in cli("reservations", "--json").data] == [str(run.pk)]


def test_check_exits_1_after_drift(
    cli: Cli, options: dict[str, Any], emulator: Emulator, declare: Declare
) -> None:
    """`list --check` exits 1 after drift, as `sync_cloudrun_jobs --check` does; a pause is not drift."""
    declare(nightly=NIGHTLY)
    assert cli("list", "--check").status == 1
    synced(emulator)
    emulator.clients.scheduler.pause_job(name=f"{PLACE}/jobs/nightly-production")

    assert cli("list", "--check").status == 0


def test_error_of_an_api_does_not_hide_the_jobs(
    cli: Cli, options: dict[str, Any], emulator: Emulator, declare: Declare
) -> None:
    """The list is printed with what is known; the last line is the error, with exit status 2."""
    declare(nightly=NIGHTLY)
    synced(emulator)
    emulator.faults.fail("CloudScheduler.ListJobs", "PERMISSION_DENIED", times=2)
    typed = cli("list")

    assert (typed.status, typed.lines[1].split()[0]) == (2, "nightly")
    assert "Grant cloudscheduler.jobs.list" in typed.err
    assert typed.err.count("\n") == 1
    assert "permission denied" in cli("list", "--json").data["errors"][0]


@pytest.mark.parametrize("environment", ["local", "production"])
def test_offline_calls_nothing(
    cli: Cli,
    settings: Settings,
    options: dict[str, Any],
    emulator: Emulator,
    declare: Declare,
    environment: str,
) -> None:
    """The list of an environment without a cloud has no drift either."""
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "ENVIRONMENT": environment}
    declare(nightly=NIGHTLY)
    arguments = ["--offline"] if environment == "production" else []

    assert cli("list", *arguments).lines[1].split()[:6] == ["nightly", "0", "3", "*", "*", "*"]
    assert cli("list", "--json", *arguments).data["jobs"][0]["drift"] is None
    assert not emulator.calls


def test_check_needs_a_cloud(cli: Cli) -> None:
    assert cli("list", "--check").status == 2


def test_invalid_job_does_not_hide_the_others(
    cli: Cli, options: dict[str, Any], emulator: Emulator, declare: Declare
) -> None:
    """An invalid job does not hide the other jobs, and its resources are not orphans."""
    declare(nightly=NIGHTLY, plain={})
    synced(emulator)
    declare(nightly={"schedule": "0 3 * *"}, plain={})
    typed = cli("list")

    assert (typed.status, len(typed.lines), typed.err.count("\n")) == (2, 2, 1)
    assert "nightly: schedule: expected" in typed.err
    assert cli("list", "--json").data["orphans"] == []
