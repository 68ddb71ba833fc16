"""A process, its record and what is told of it say the same, whatever comes when the work has ended."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import Error, connections

from cloudrun_jobs.exceptions import JobInterrupted
from cloudrun_jobs.execution import interrupts
from cloudrun_jobs.execution.attempt import Attempt
from cloudrun_jobs.execution.termination import Termination
from cloudrun_jobs.models import JobRun, Status, TaskRun
from cloudrun_jobs.signals import job_finished, job_skipped
from tests.jobs.management.commands import echo, outcome
from tests.locks.workers import database_settings
from tests.runs.conftest import EXECUTION, Container, begin, request

ROOT = Path(__file__).resolve().parents[2]

# A container in which SIGTERM comes at the end of a job, and again when all is over.
TERMINATED = """
import atexit, os, signal, sys
import django
django.setup()
from cloudrun_jobs.execution.attempt import Attempt
from django.core.management import execute_from_command_line

def terminate():
    os.kill(os.getpid(), signal.SIGTERM)

atexit.register(terminate)
record = Attempt._record
Attempt._record = lambda *args: terminate() or record(*args)
execute_from_command_line(["manage.py", *sys.argv[1:]])
"""


@pytest.fixture
def terminate_while_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send SIGTERM while an outcome is being written."""
    record = Attempt._record

    def recorded(attempt: Attempt, *args: Any) -> None:
        signal.raise_signal(signal.SIGTERM)
        record(attempt, *args)

    monkeypatch.setattr(Attempt, "_record", recorded)


@pytest.mark.parametrize(
    ("ending", "code", "status"),
    [("text", 0, Status.SUCCEEDED), ("exit", 3, Status.FAILED), ("error", 1, Status.FAILED)],
)
def test_sigterm_after_the_work_changes_no_status(database: str, ending: str, code: int, status: Status) -> None:
    """A process whose work is done and recorded ends as that says, or Cloud Run would try it again."""
    environment = {
        "DJANGO_SETTINGS_MODULE": "tests.runs.settings",
        "RUNS_DATABASE": json.dumps(database_settings(database)),
        "CLOUD_RUN_EXECUTION": EXECUTION,
        "CLOUD_RUN_TASK_ATTEMPT": "2",
    }
    program = [sys.executable, "-c", TERMINATED, "outcome", ending]
    options = {"env": {**os.environ, **environment}, "cwd": ROOT, "capture_output": True, "timeout": 60}
    done = subprocess.run(program, **options, check=False)

    assert done.returncode == code, done.stderr
    assert JobRun.objects.get().status == status
    assert TaskRun.objects.get().exit_code == code


@pytest.mark.usefixtures("terminate_while_recording")
def test_sigterm_after_the_work_outside_of_a_container(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same holds where `manage.py` runs the job anywhere, and the signal is what it was afterwards."""
    assert container.run("outcome", "text", execution="") == 0
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.usefixtures("terminate_while_recording")
def test_sigterm_after_the_work_reaches_who_called_the_job() -> None:
    """Their process is told to end, whatever became of the job."""
    with pytest.raises(SystemExit) as caught:
        call_command("outcome", "text")

    assert caught.value.code == 143
    assert JobRun.objects.get().status == Status.SUCCEEDED


@pytest.mark.usefixtures("terminate_while_recording")
def test_sigterm_after_an_inner_jobs_work_interrupts_the_outer_one(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one job leaves unheard is for the one that called it, though both are of the same command."""
    inner = outcome.ENDINGS["none"]
    monkeypatch.setitem(outcome.ENDINGS, "none", lambda: None)

    def run(self: outcome.Command, *args: Any, ending: str, **options: Any) -> Any:
        return self.delay("none").result() if ending == "text" else inner()

    monkeypatch.setattr(outcome.Command, "run", run)

    assert container.run("outcome", "text", execution="") == 143
    assert sorted(JobRun.objects.values_list("status", flat=True)) == [Status.CANCELLED, Status.SUCCEEDED]


@pytest.fixture
def told() -> Iterator[list[dict[str, Any]]]:
    """What the signals of an end tell, and how the record read at that time."""
    heard: list[dict[str, Any]] = []

    def hear(run: JobRun, **values: Any) -> None:
        stored = JobRun.objects.filter(pk=run.pk).values_list("status", flat=True).first()
        heard.append({"status": run.status, "stored": stored, "run": run, **values})

    for ended in (job_finished, job_skipped):
        ended.connect(hear)
    yield heard
    for ended in (job_finished, job_skipped):
        ended.disconnect(hear)


@pytest.mark.parametrize(
    ("ending", "attempt", "status"),
    [("text", 0, Status.SUCCEEDED), ("exit", 2, Status.FAILED), ("exit", 0, Status.RUNNING)],
)
def test_the_end_is_told_when_the_record_says_so(
    container: Container, told: list[dict[str, Any]], ending: str, attempt: int, status: Status
) -> None:
    """Who hears of the end reads it in the record; with retries left the run goes on."""
    container.run("outcome", ending, attempt=attempt)

    (heard,) = told
    assert (heard["status"], heard["stored"]) == (status, status)
    assert (heard["error"] is None) == (ending == "text")


def test_a_skip_is_told_when_the_record_says_so(
    database: str, told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run that stepped aside, because the other one works, is skipped by then."""

    def run(self: echo.Command, **options: Any) -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(delay).result()

    def delay() -> None:
        try:
            echo.Command().delay()
        finally:
            connections[database].close()  # This thread's.

    monkeypatch.setattr(echo.Command, "run", run)
    echo.Command().delay()

    both = [(Status.SKIPPED, Status.SKIPPED), (Status.SUCCEEDED, Status.SUCCEEDED)]
    assert [(heard["status"], heard["stored"]) for heard in told] == both


def test_an_end_that_cannot_be_recorded_is_told(
    told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With the truth, which the row does not say."""

    def broken(*args: Any, **values: Any) -> None:
        raise Error("gone")

    monkeypatch.setattr(Attempt, "_record", broken)
    with caplog.at_level(logging.INFO, "cloudrun_jobs"):
        echo.Command().delay(partner=7)

    (heard,) = told
    assert (heard["status"], heard["stored"], heard["error"]) == (Status.SUCCEEDED, Status.RUNNING, None)
    assert heard["run"].result == {"words": [], "partner": 7, "note": None}
    actions = [record.__dict__["action"] for record in caplog.records]
    assert actions == ["job_started", "run_record_failed", "job_finished", "job_delayed"]


def test_an_end_that_another_gave_it_is_told(told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run that somebody else ended before, its own process says the same as the row."""
    ended = JobRun.objects.filter
    monkeypatch.setattr(echo.Command, "run", lambda self, **options: ended().update(status=Status.CANCELLED))
    echo.Command().delay()

    assert [(heard["status"], heard["stored"]) for heard in told] == [(Status.CANCELLED, Status.CANCELLED)]


def test_work_that_is_done_is_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the locks are given back slowly after SIGTERM, what is recorded before SIGKILL is what was done."""
    left: list[int] = []
    monkeypatch.setattr(os, "_exit", left.append)
    run = request()
    with begin(run) as attempt:
        assert isinstance(attempt, Attempt)
        attempt.succeed("done")
        attempt.terminate(Termination())
        seen = JobRun.objects.get()

    assert (left, seen.status, seen.result) == ([0], Status.SUCCEEDED, "done")


def test_a_second_sigterm_does_not_break_off_the_cleaning_up(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is interrupted once, and has its eight seconds."""
    cleaned: list[str] = []

    def run(self: echo.Command, **options: Any) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            cleaned.append("up")

    monkeypatch.setattr(echo.Command, "run", run)

    assert container.run("echo") == 143
    assert cleaned == ["up"]


def test_sigterm_in_an_inline_job_is_for_the_whole_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who called delay() does not get a failed job to handle, but is to end."""
    monkeypatch.setattr(echo.Command, "run", lambda self, **options: signal.raise_signal(signal.SIGTERM))

    with pytest.raises(JobInterrupted):
        echo.Command().delay()
    assert JobRun.objects.get().status == Status.CANCELLED


def test_a_process_that_runs_another_job_hears_again(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deaf is what ends; a script may run a second job after the first."""
    monkeypatch.setattr(echo.Command, "run", lambda self, **options: signal.raise_signal(signal.SIGTERM))
    container.environment()
    with interrupts.handle_signals() as interrupt:
        interrupt.ignore_further_signals()

    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    assert container.run("echo") == 143
