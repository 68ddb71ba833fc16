"""The exit status and the one-line message of each kind of error."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError
from pytest_django import Settings

from cloudrun_jobs.backends.cloudrun import clients
from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.management.exits import errors_reported_once, raise_together
from cloudrun_jobs.management.subcommands import SUBCOMMANDS
from cloudrun_jobs.models import JobRun
from tests.backends.test_fork import free_port
from tests.management.cli import Cli

MANAGE = Path(__file__).parents[1] / "manage.py"
SECRET = "swordfish"
PREFIX = "5f0c2a9e"

USAGE = {
    "no subcommand": ([], "arguments are required: subcommand"),
    "an unknown subcommand": (["rns"], "there is no subcommand 'rns'. Did you mean 'runs'?"),
    "a strange subcommand": (["\x1b[31m\n"], "there is no subcommand '\\x1b[31m\\n'. Known: "),
    "an unknown option": (["runs", "--jsn"], "unknown option --jsn. Did you mean '--json'?"),
    "an abbreviated option": (["runs", "--jso"], "unknown option --jso. Did you mean '--json'?"),
    "an unknown short option": (["runs", "-x"], "unknown option -x. --help lists the options."),
    "a superfluous argument": (["runs", "echo", "b"], "unexpected argument. --help shows the usage."),
    "a missing value": (["runs", "--limit"], "--limit: expected one argument"),
    "a value of a wrong type": (
        ["runs", "--limit=x"],
        "--limit: expected a whole number from 1 to",
    ),
    "no number of tasks": (["run", "echo", "--tasks=x"], "--tasks: expected a whole number"),
    "too few tasks": (["run", "echo", "--tasks=0"], "CommandError: --tasks: expected a whole number from 1 to"),
    "a variable of Cloud Run": (["run", "echo", "--env", "CLOUD_RUN_JOB=x"], "CommandError: --env: "),
    "a number that is too big": (
        ["runs", f"--limit={'9' * 20}"],
        "--limit: expected a whole number from 1",
    ),
    "a number that is too small": (["runs", "--limit=0"], "--limit: expected a whole number from 1"),
    "an unknown choice": (
        ["export", "--format=teraform"],
        "--format: unknown value 'teraform'. Did you mean",
    ),
    "arguments of a job": (["runs", "--", "x"], "only the subcommand `run` takes them"),
    "an option of the job": (["run", "echo", "--token", SECRET], "unknown option --token. Write the job's own"),
    "a misspelt option": (["run", "echo", "--wiat"], "unknown option --wiat. Did you mean '--wait'? Write the"),
    "with its value": (["run", "echo", f"--token={SECRET}"], "unknown option --token. Write the job's own"),
    "a short one": (["run", "echo", f"-t{SECRET}"], "unknown option -t. Write the job's own"),
    "an argument of the job": (
        ["run", "echo", SECRET],
        "unexpected argument. Write the job's own",
    ),
}


@pytest.mark.parametrize(("argv", "message"), USAGE.values(), ids=USAGE)
def test_mistakes_on_the_command_line_exit_2(cli: Cli, argv: list[str], message: str) -> None:
    """The error is one line on stderr with the next step, and contains no value that may be a secret."""
    typed = cli(*argv)

    assert (typed.status, typed.out, typed.err.count("\n")) == (2, "", 1)
    assert message in typed.err
    assert SECRET not in typed.err


NAMES = {
    "a job": (["run", "ech"], "'ech' is not a Cloud Run job. Did you mean 'echo'?"),
    "a command that is no job": (["run", "migrate"], "'migrate' is a command, but not a Cloud Run job."),
    "a job without runs": (["runs", "ehco"], "Did you mean 'echo'?"),
    "a run": (["show", "x"], "No run 'x' is recorded, and no job has this name. `manage.py"),
    "a run, with a traceback": (["show", "x", "--traceback"], "No run 'x' is recorded"),
    "a misspelt run": (["show", "5f0c2a9f"], f"Did you mean '{PREFIX}'?"),
    "a misspelt execution": (["rerun", "echo-x7k2"], "Did you mean 'echo-x7k2p'?"),
    "an ambiguous prefix": (["show", PREFIX], f"The ids of 2 runs begin with '{PREFIX}'"),
}


@pytest.mark.parametrize(("argv", "message"), NAMES.values(), ids=NAMES)
def test_unknown_names_exit_1(cli: Cli, argv: list[str], message: str) -> None:
    """A similar name is suggested."""
    for number, execution in enumerate((None, "echo-x7k2p")):
        pk = f"{PREFIX}-0000-4000-8000-{number:012}"
        JobRun.objects.create(pk=pk, command="sweep", environment="test", trigger="delay", execution=execution)

    typed = cli(*argv)

    assert (typed.status, typed.out, typed.err.count("\n")) == (1, "", 1)
    assert message in typed.err


@pytest.mark.parametrize("options", ["--settings=tests.settings", "--no-color", "--verbosity=2", "-v2"])
def test_options_of_django_may_follow_the_subcommand(cli: Cli, options: str) -> None:
    assert cli("runs", options)[:2] == (0, "")


def test_missing_project_exits_2(cli: Cli, settings: Settings) -> None:
    """The error names the settings, regardless of the system checks."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "production"}
    typed = cli("run", "echo")

    assert (typed.status, typed.err.count("\n")) == (2, 1)
    assert "CLOUDRUN_JOBS['PROJECT'] and CLOUDRUN_JOBS['REGION']: required" in typed.err


@pytest.fixture
def _google(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Use Google's services, in a process that has no credentials."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "production", "PROJECT": "acme", "REGION": "europe-west4"}
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    with mock.patch.dict(clients._clients, clear=True):
        yield


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_google")
def test_missing_credentials_exit_2(cli: Cli) -> None:
    """The error names the command that creates credentials; the log does not repeat it."""
    typed = cli("run", "echo")

    assert (typed.status, typed.out, typed.err.count("\n")) == (2, "", 1)
    assert "no valid credentials." in typed.err
    assert "`gcloud auth application-default login`" in typed.err


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_google", "_only_these_jobs")
def test_same_error_of_two_services_is_one(cli: Cli) -> None:
    """`list` reads the jobs and the schedules."""
    assert cli("list").err.count("no valid credentials.") == 1


@pytest.mark.parametrize("read_log", [("logs", PREFIX), ("list",)], ids=["logs", "list"])
def test_missing_server_has_one_message(cli: Cli, options: dict[str, Any], read_log: tuple[str, ...]) -> None:
    """The emulator has ended, or was not started."""
    options["endpoint"] = f"127.0.0.1:{free_port()}"
    pk = f"{PREFIX}-0000-4000-8000-000000000000"
    JobRun.objects.create(pk=pk, command="echo", environment="production", trigger="delay", execution="echo-x7k2p")
    typed = cli(*read_log)

    assert typed.status == 2
    assert f": No server listens at {options['endpoint']}. Start `manage.py cloudrun_emulator`" in typed.err


def test_several_errors_have_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    """A command in one of them can be copied; the same error is printed once."""
    with pytest.raises(CommandError, match=r"There are 2 errors\.") as raised:
        raise_together(BaseCommand(), ["a", "b", "a"], returncode=2)

    assert (raised.value.returncode, capsys.readouterr().err) == (2, "a\nb\n")


@pytest.mark.parametrize(
    ("name", "level", "action", "is_printed"),
    [
        ("google.auth._default", logging.WARNING, "", False),
        ("cloudrun_jobs", logging.WARNING, "dispatch_failed", False),
        ("cloudrun_jobs", logging.ERROR, "dispatch_failed", True),
        ("shop", logging.WARNING, "", True),
    ],
)
def test_log_does_not_repeat_the_error(name: str, level: int, action: str, is_printed: bool) -> None:
    """Python's last-resort handler adds no line to the error on stderr."""
    record = logging.makeLogRecord({"name": name, "levelno": level, "action": action})
    assert logging.lastResort is not None
    with errors_reported_once():
        assert bool(logging.lastResort.filter(record)) is is_printed

    assert logging.lastResort.filter(record)


@pytest.mark.django_db(transaction=True)
def test_error_of_an_api_exits_2(cli: Cli, options: dict[str, Any], emulator: Emulator) -> None:
    """`run` exits 2 for a job that is not deployed."""
    typed = cli("run", "echo")

    assert (typed.status, typed.out, typed.err.count("\n")) == (2, "", 1)
    assert "Create it: manage.py sync_cloudrun_jobs" in typed.err


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (KeyboardInterrupt(), 130, "CommandError: Interrupted.\n"),
        (BrokenPipeError(), 141, ""),
        (OperationalError("no\nroute\n"), 1, "CommandError: The database 'default' failed: no\\nroute\n"),
    ],
    ids=["ctrl-c", "pipe", "database"],
)
def test_interrupts_and_failures(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, line: str
) -> None:
    monkeypatch.setattr("cloudrun_jobs.management.streams._discard_output", lambda: None)
    monkeypatch.setattr(SUBCOMMANDS["runs"], "run", mock.Mock(side_effect=error))

    assert cli("runs") == (status, "", line)


@pytest.mark.usefixtures("process_database")
def test_closed_pipe_is_no_error() -> None:
    """A closed pipe, as in `cloudrun_jobs runs | head -0`, causes no traceback, even at interpreter exit."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, str(MANAGE), "cloudrun_jobs", "stats", "--json"]
    done = subprocess.run(
        command,
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
        # A shell may have left it ignored, as Python does.
        preexec_fn=lambda: signal.signal(signal.SIGPIPE, signal.SIG_IGN),
    )
    os.close(writing)

    assert (done.returncode, done.stderr) == (141, b"")
