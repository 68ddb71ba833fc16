"""The requests that Cloud Run receives, on a gRPC server."""

from __future__ import annotations

import json
import logging
from datetime import date
from typing import Any
from uuid import UUID

import pytest
from asgiref.sync import async_to_sync
from django.core.serializers.json import DjangoJSONEncoder
from google.cloud import run_v2
from pytest_django import Settings

from cloudrun_jobs import CloudRunJobs, InvalidArguments
from tests.backends.server import CloudRun
from tests.jobs.management.commands import echo, everything, outcome

CALLS: list[tuple[type[CloudRunJobs], tuple[Any, ...], dict[str, Any], list[str]]] = [
    (echo.Command, (), {}, ["echo"]),
    (echo.Command, (), {"partner": 7}, ["echo", "--partner=7"]),
    (echo.Command, ("a b", "--settings=evil"), {}, ["echo", "--", "a b", "--settings=evil"]),
    (echo.Command, (), {"note": "--pythonpath=/x"}, ["echo", "--note=--pythonpath=/x"]),
    (echo.Command, (), {"note": "日本語\n🦊"}, ["echo", "--note=日本語\n🦊"]),
    (echo.Command, (), {"note": ""}, ["echo", "--note="]),
    (echo.Command, (), {"verbosity": 2}, ["echo", "--verbosity=2"]),
    (outcome.Command, ("exit 256",), {}, ["outcome", "--", "exit 256"]),
    (everything.Command, ("x",), {"day": date(2026, 1, 2)}, ["everything", "--day=2026-01-02", "--", "x"]),
    (everything.Command, ("x", "y", "z"), {"dry_run": True}, ["everything", "--dry-run", "--", "x", "y", "z"]),
    (everything.Command, ("x",), {"many": ["a", "b"]}, ["everything", "--many", "a", "b", "--", "x"]),
    (everything.Command, ("x",), {"tag": ["-a", "b"]}, ["everything", "--tag=-a", "--tag=b", "--", "x"]),
    (everything.Command, ("x",), {"shop": [1, -2]}, ["everything", "--shop=1", "--shop=-2", "--", "x"]),
    (everything.Command, ("x",), {"mail": False}, ["everything", "--no-mail", "--", "x"]),
    (everything.Command, ("x",), {"wet": False, "mode": "fast"}, ["everything", "--wet", "--mode", "--", "x"]),
    (everything.Command, ("x",), {"level": 2}, ["everything", "--level", "--level", "--", "x"]),
]


@pytest.mark.parametrize(("command", "args", "options", "argv"), CALLS)
def test_run_job_request(
    cloud_run: CloudRun,
    command: type[CloudRunJobs],
    args: tuple[Any, ...],
    options: dict[str, Any],
    argv: list[str],
) -> None:
    """The message contains only the job's name, the arguments and the run's id."""
    operation = command().delay(*args, **options)

    job = argv[0]
    override = run_v2.RunJobRequest.Overrides.ContainerOverride(
        args=argv, env=[run_v2.EnvVar(name="CLOUDRUN_JOBS_RUN_ID", value=operation.run_id)]
    )
    expected = run_v2.RunJobRequest(
        name=f"projects/acme/locations/asia-northeast1/jobs/{job}-production",
        overrides=run_v2.RunJobRequest.Overrides(container_overrides=[override]),
    )
    assert cloud_run.requests == [expected]
    assert UUID(operation.run_id).version == 4


@pytest.mark.parametrize(
    ("command", "args", "options", "argv"), [call for call in CALLS if call[0] is not outcome.Command]
)
def test_arguments_are_parsed_as_inline(
    command: type[CloudRunJobs], args: tuple[Any, ...], options: dict[str, Any], argv: list[str]
) -> None:
    """Parsed in a container, the arguments are the options that run() gets inline."""
    inline = command().delay(*args, **options).result()
    parsed = vars(command().create_parser("manage.py", argv[0]).parse_args(argv[1:]))

    assert inline == {name: json.loads(json.dumps(parsed[name], cls=DjangoJSONEncoder)) for name in inline}


def test_invalid_arguments_are_not_sent(cloud_run: CloudRun) -> None:
    """Arguments that would fail in the container fail in the caller."""
    with pytest.raises(InvalidArguments, match=r"outcome: argument ending: invalid choice: 'oops'"):
        outcome.Command().delay("oops")

    assert cloud_run.requests == []


def test_run_ids_are_unique(cloud_run: CloudRun) -> None:
    """Two requests with the same arguments have different ids."""
    first, second = echo.Command().delay(), echo.Command().delay()

    assert first.run_id != second.run_id


def test_dispatch_is_logged(cloud_run: CloudRun, caplog: pytest.LogCaptureFixture) -> None:
    """The log names the execution."""
    with caplog.at_level(logging.INFO, "cloudrun_jobs"):
        operation = echo.Command().delay()

    assert caplog.messages == [f"Job echo-production was dispatched as {operation.execution_name}"]
    assert caplog.records[0].__dict__["run_id"] == operation.run_id


def test_calls_have_a_timeout(cloud_run: CloudRun, settings: Settings) -> None:
    """Every call has a timeout, which Google's client lacks by default."""
    options = {"endpoint": cloud_run.endpoint, "rpc_timeout": 7}
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "OPTIONS": options}
    operation = echo.Command().delay()
    operation.done()
    operation.cancel()

    assert len(cloud_run.deadlines) == 3
    assert all(0 < left < 8 for left in cloud_run.deadlines)


def test_client_is_reused(cloud_run: CloudRun) -> None:
    """Two requests use one connection."""
    echo.Command().delay()
    echo.Command().delay()

    assert len(set(cloud_run.peers)) == 1


def test_too_many_arguments_are_not_sent(cloud_run: CloudRun) -> None:
    """delay() enforces the limits of a container."""
    with pytest.raises(InvalidArguments, match="echo: Expected at most 1000 arguments, got 1002"):
        echo.Command().delay(*["x"] * 1000)

    assert cloud_run.requests == []


def test_adelay(cloud_run: CloudRun) -> None:
    """adelay() does what delay() does."""
    operation = async_to_sync(echo.Command().adelay)(partner=7)

    assert list(cloud_run.requests[0].overrides.container_overrides[0].args) == ["echo", "--partner=7"]
    assert operation.execution_name.endswith("/jobs/echo-production/executions/echo-production-abcde")
