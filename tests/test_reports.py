"""Each failure is reported once: by the log at ERROR, or by what reports uncaught exceptions."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import transaction

from cloudrun_jobs import LeaseLost
from cloudrun_jobs.exceptions import AccessDenied, JobFailed, LockUnavailable
from cloudrun_jobs.signals import lease_lost
from tests.backends.server import CloudRun
from tests.jobs.management.commands import echo, outcome
from tests.runs.conftest import Container, cloud, container

__all__ = ["cloud", "container"]

DENIED = [(grpc.StatusCode.PERMISSION_DENIED, "no")]


def lose_the_lock() -> None:
    lease_lost.send_robust(object, lease=SimpleNamespace(name="echo", token=1), reason="its server is away")
    raise LeaseLost("the lock is lost")


def refuse() -> None:
    raise LockUnavailable("the lock server is away")


def run_echo() -> None:
    call_command("echo")


ENDINGS: dict[str, Callable[[], Any]] = {
    **outcome.ENDINGS,
    "command error": lambda: outcome.Command().run(ending="command error"),
    "lock": refuse,
    "nested": run_echo,
}
FAILURES = ("error", "exit", "exit 256", "exit text", "command error", "lock", "set")


@pytest.fixture
def reports(caplog: pytest.LogCaptureFixture) -> Callable[[Callable[[], Any]], list[str]]:
    """Call a function, and return what reports errors, such as Sentry, gets: records and uncaught exceptions."""

    def call(function: Callable[[], Any]) -> list[str]:
        caught: list[str] = []
        caplog.clear()
        with caplog.at_level(logging.INFO, "cloudrun_jobs"), suppress(SystemExit):
            try:
                function()
            except SystemExit:
                raise
            except BaseException as error:  # noqa: BLE001  (as the interpreter ends for any)
                caught = [type(error).__name__]
            finally:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)  # As a new process has it.
        errors = [record.__dict__["action"] for record in caplog.records if record.levelno >= logging.ERROR]
        return errors + caught

    return call


def on_the_command_line(*options: str) -> None:
    echo.Command().run_from_argv(["manage.py", "echo", "--skip-checks", *options])


def ends(monkeypatch: pytest.MonkeyPatch, ending: Callable[[], Any], command: type = echo.Command) -> None:
    monkeypatch.setattr(command, "run", lambda self, *args, **options: ending())


@pytest.mark.parametrize("ending", FAILURES)
@pytest.mark.parametrize("call", [on_the_command_line, run_echo, lambda: echo.Command().delay()])
def test_a_failure_is_reported_once(
    reports: Any, monkeypatch: pytest.MonkeyPatch, call: Callable[[], Any], ending: str
) -> None:
    """Whatever run() raises, wherever it is called."""
    ends(monkeypatch, ENDINGS[ending])

    assert len(reports(call)) == 1


@pytest.mark.parametrize(
    ("ending", "reported"),
    [("error", "ZeroDivisionError"), ("exit", "job_finished"), ("command error", "job_finished")],
)
def test_a_printed_error_is_logged(
    reports: Any, monkeypatch: pytest.MonkeyPatch, ending: str, reported: str
) -> None:
    """Of an exit, and of an error that Django prints in one line, only the log knows."""
    ends(monkeypatch, ENDINGS[ending])

    assert reports(on_the_command_line) == [reported]


def test_a_traceback_of_a_printed_error_is_its_report(reports: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --traceback Django lets the error pass."""
    ends(monkeypatch, ENDINGS["command error"])

    assert reports(lambda: on_the_command_line("--traceback")) == ["CommandError"]


def test_a_lost_lock_is_reported_once(reports: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is logged when it is noticed, not again when the job ends of it."""
    ends(monkeypatch, lose_the_lock)

    assert reports(on_the_command_line) == ["lease_lost"]


def test_an_error_of_a_nested_job_is_reported_once(reports: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error passes through both jobs."""
    ends(monkeypatch, ENDINGS["error"])
    ends(monkeypatch, run_echo, outcome.Command)

    def call() -> None:
        outcome.Command().run_from_argv(["manage.py", "outcome", "--skip-checks", "none"])

    assert reports(call) == ["ZeroDivisionError"]


def test_an_error_that_the_caller_handles_is_no_report(reports: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with any function that is called."""
    ends(monkeypatch, ENDINGS["exit"])

    def call() -> None:
        with suppress(JobFailed, CommandError):
            echo.Command().delay()

    assert reports(call) == []


def test_a_cancelled_run_is_no_failure(
    container: Container, reports: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C is logged as a warning."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    ends(monkeypatch, interrupt)

    assert reports(lambda: container.run("echo")) == []


def test_a_sigterm_is_reported_once(container: Container, reports: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process exits: only the log knows."""
    ends(monkeypatch, lambda: signal.raise_signal(signal.SIGTERM))

    assert reports(lambda: container.run("echo")) == ["job_finished"]


def test_a_failed_dispatch_is_reported_once(transactional_db: None, cloud: CloudRun, reports: Any) -> None:
    """The caller gets the error; after a commit only the log does."""
    cloud.errors = DENIED * 2
    assert reports(echo.Command().delay) == [AccessDenied.__name__]

    def call() -> None:
        with transaction.atomic():
            echo.Command().delay()

    assert reports(call) == ["dispatch_failed"]
