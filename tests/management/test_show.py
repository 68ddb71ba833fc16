"""`cloudrun_jobs show JOB`; that of a run is tested with the records."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest

from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.exceptions import LockUnavailable
from cloudrun_jobs.locks import current, names
from cloudrun_jobs.locks.base import Owner
from cloudrun_jobs.management.finding import find_run
from cloudrun_jobs.models import JobRun, Status
from tests.deploy.commands import PLACE, sync
from tests.management.cli import Cli


def record(command: str, **values: Any) -> JobRun:
    return JobRun.objects.create(command=command, environment="production", trigger="delay", **values)


def test_job_is_shown(cli: Cli, options: dict[str, Any], emulator: Emulator) -> None:
    """`show JOB` prints the schedules, the last runs, the holder of the lock, and the drift."""
    sync("sync_cloudrun_schedules", emulator, "--command", "nightly")
    emulator.clients.scheduler.pause_job(name=f"{PLACE}/jobs/nightly-production")
    run = record("nightly", status=Status.FAILED)
    current().acquire(names.for_job("nightly"), 1, Owner(holder="nightly-x7k2p", nonce="1"), 60)
    typed = cli("show", "nightly")
    data = cli("show", "nightly", "--json").data

    shown = dict(line.split("  ", 1) for line in typed.lines[: typed.lines.index("")])
    assert typed.status == 0
    assert shown["Schedule"].split("  ")[-1] == "paused"
    assert shown["Lock held by"].strip().startswith("nightly: nightly-x7k2p")
    assert shown["Cloud"].strip() == "job missing"
    assert shown["Console"].strip().endswith("/europe-west4/nightly-production/executions?project=acme")
    assert typed.lines[-1].startswith(f"{run.pk}  failed")
    assert typed.err == "`manage.py cloudrun_jobs run nightly` starts it.\n"
    assert (data["drift"], data["runs"][0]["id"], len(data["locks"])) == (["job missing"], str(run.pk), 1)


def test_run_precedes_a_job_of_the_same_name(cli: Cli) -> None:
    """An execution may have the name of a job."""
    run = record("sweep", execution="echo")

    assert str(run.pk) in cli("show", "echo").lines[0]


@pytest.mark.parametrize("arguments", [[], ["--offline"]])
def test_job_without_a_cloud(cli: Cli, arguments: list[str]) -> None:
    """In the environment "test" there is nothing to compare."""
    typed = cli("show", "echo", *arguments)

    assert (typed.status, "Cloud  " in typed.out, "Console" in typed.out) == (0, False, False)


def test_errors_do_not_hide_the_job(cli: Cli, options: dict[str, Any], emulator: Emulator) -> None:
    """The error of an API is the last line, after that of the lock server."""
    emulator.faults.fail("Jobs.ListJobs", "PERMISSION_DENIED")
    with mock.patch("cloudrun_jobs.locks.jobs.current", side_effect=LockUnavailable("no lock server")):
        typed = cli("show", "echo")

    assert (typed.status, typed.lines[0].split()) == (2, ["Job", "echo"])
    assert typed.err.splitlines()[0] == "no lock server"
    assert "Grant run.jobs.list" in typed.err.splitlines()[1]


def test_prefix_is_found_with_an_index(django_assert_num_queries: Any) -> None:
    """The first eight digits are a range of ids: two queries, whose second reads no other run."""
    run = record("sweep")
    with django_assert_num_queries(2) as queries:
        assert find_run(str(run.pk)[:8]) == run

    assert "CAST" not in queries.captured_queries[1]["sql"]
