"""What arrives at Cloud Run when a job is sent, byte for byte, on a real gRPC server."""

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
def test_the_request_that_arrives(
    cloud_run: CloudRun,
    command: type[CloudRunJobs],
    args: tuple[Any, ...],
    options: dict[str, Any],
    argv: list[str],
) -> None:
    """The message holds the job's name, its arguments and the run's id, and nothing else."""
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
def test_the_arguments_mean_the_same_inline(
    command: type[CloudRunJobs], args: tuple[Any, ...], options: dict[str, Any], argv: list[str]
) -> None:
    """Parsed as a container would, the arguments give run() what the inline road gives it."""
    inline = command().delay(*args, **options).result()
    parsed = vars(command().create_parser("manage.py", argv[0]).parse_args(argv[1:]))

    assert inline == {name: json.loads(json.dumps(parsed[name], cls=DjangoJSONEncoder)) for name in inline}


def test_nothing_is_sent_for_arguments_the_command_would_refuse(cloud_run: CloudRun) -> None:
    """What would fail in the container fails in the caller, before anything is paid for."""
    with pytest.raises(InvalidArguments, match=r"outcome: argument ending: invalid choice: 'oops'"):
        outcome.Command().delay("oops")

    assert cloud_run.requests == []


def test_every_request_has_an_id_of_its_own(cloud_run: CloudRun) -> None:
    """Two requests for the same work can be told apart."""
    first, second = echo.Command().delay(), echo.Command().delay()

    assert first.run_id != second.run_id


def test_what_was_sent_is_logged(cloud_run: CloudRun, caplog: pytest.LogCaptureFixture) -> None:
    """The log says which execution a request became."""
    with caplog.at_level(logging.INFO, "cloudrun_jobs"):
        operation = echo.Command().delay()

    assert caplog.messages == [f"Job echo-production was dispatched as {operation.execution_name}"]
    assert caplog.records[0].__dict__["run_id"] == operation.run_id


def test_the_call_has_a_deadline(cloud_run: CloudRun, settings: Settings) -> None:
    """Every call has an explicit time-out; Google's client has none by default."""
    options = {"endpoint": cloud_run.endpoint, "rpc_timeout": 7}
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "OPTIONS": options}
    operation = echo.Command().delay()
    operation.done()
    operation.cancel()

    assert len(cloud_run.deadlines) == 3
    assert all(0 < left < 8 for left in cloud_run.deadlines)


def test_a_process_keeps_one_client(cloud_run: CloudRun) -> None:
    """Two requests come by one connection: a client per call costs many times the call."""
    echo.Command().delay()
    echo.Command().delay()

    assert len(set(cloud_run.peers)) == 1


def test_more_than_a_container_can_be_given_is_not_sent(cloud_run: CloudRun) -> None:
    """The limits hold at delay()."""
    with pytest.raises(InvalidArguments, match="echo: Expected at most 1000 arguments, got 1002"):
        echo.Command().delay(*["x"] * 1000)

    assert cloud_run.requests == []


def test_async_code_can_send_too(cloud_run: CloudRun) -> None:
    """adelay() does what delay() does."""
    operation = async_to_sync(echo.Command().adelay)(partner=7)

    assert list(cloud_run.requests[0].overrides.container_overrides[0].args) == ["echo", "--partner=7"]
    assert operation.execution_name.endswith("/jobs/echo-production/executions/echo-production-abcde")
