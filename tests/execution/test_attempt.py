"""The exit status, the record and the signals agree, whatever happens after the work has ended."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import Error, connections

from cloudrun_jobs import CloudRunJobs
from cloudrun_jobs.exceptions import JobInterrupted
from cloudrun_jobs.execution import deadlines, interrupts
from cloudrun_jobs.execution.attempt import Attempt
from cloudrun_jobs.execution.termination import Termination, on_sigterm
from cloudrun_jobs.models import JobRun, Status, TaskRun
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.signals import job_finished, job_skipped
from tests.jobs.management.commands import echo, outcome
from tests.locks.workers import database_settings
from tests.logs.reading import next_line
from tests.runs.conftest import EXECUTION, Container, begin, request

ROOT = Path(__file__).resolve().parents[2]

# A container that receives SIGTERM while the outcome is recorded, and again at exit.
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
    """Send SIGTERM while an outcome is first recorded."""
    record, terminated = Attempt._record, []

    def recorded(attempt: Attempt, *args: Any) -> None:
        if not terminated:
            terminated.append(True)
            signal.raise_signal(signal.SIGTERM)
        record(attempt, *args)

    monkeypatch.setattr(Attempt, "_record", recorded)


@pytest.mark.parametrize(
    ("database", "ending", "code", "status"),
    [
        ("sqlite", "text", 0, Status.SUCCEEDED),
        ("postgres", "exit", 3, Status.FAILED),
        ("mariadb", "error", 1, Status.FAILED),
    ],
    indirect=["database"],
)
def test_sigterm_after_the_work_keeps_the_exit_status(
    database: str, ending: str, code: int, status: Status
) -> None:
    """The process exits with the recorded status, so Cloud Run does not retry completed work."""
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
def test_sigterm_after_the_work_outside_a_container(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """`manage.py` exits with the recorded status and restores the signal handler."""
    assert container.run("outcome", "text", execution="") == 0
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.usefixtures("terminate_while_recording")
def test_sigterm_after_the_work_reaches_the_caller() -> None:
    """The process that called the job in its code is still interrupted."""
    with pytest.raises(SystemExit) as caught:
        call_command("outcome", "text")

    assert caught.value.code == 143
    assert JobRun.objects.get().status == Status.SUCCEEDED


@pytest.mark.usefixtures("terminate_while_recording")
def test_sigterm_after_a_nested_job_interrupts_the_outer_one(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal that arrives after the work of a nested job interrupts the job that called it."""
    inner = outcome.ENDINGS["none"]
    monkeypatch.setitem(outcome.ENDINGS, "none", lambda: None)

    def run(self: outcome.Command, *args: Any, ending: str, **options: Any) -> Any:
        return self.delay("none").result() if ending == "text" else inner()

    monkeypatch.setattr(outcome.Command, "run", run)

    assert container.run("outcome", "text", execution="") == 143
    assert sorted(JobRun.objects.values_list("status", flat=True)) == [Status.FAILED, Status.SUCCEEDED]


@pytest.fixture
def ends() -> Iterator[list[dict[str, Any]]]:
    """Record the values of the signals of an end, and the stored status at that time."""
    received: list[dict[str, Any]] = []

    def receiver(run: JobRun, **values: Any) -> None:
        stored = JobRun.objects.filter(pk=run.pk).values_list("status", flat=True).first()
        received.append({"status": run.status, "stored": stored, "run": run, **values})

    for ended in (job_finished, job_skipped):
        ended.connect(receiver)
    yield received
    for ended in (job_finished, job_skipped):
        ended.disconnect(receiver)


@pytest.mark.parametrize(
    ("ending", "attempt", "status"),
    [("text", 0, Status.SUCCEEDED), ("exit", 2, Status.FAILED), ("exit", 0, Status.RUNNING)],
)
def test_job_finished_is_sent_after_the_record(
    container: Container, ends: list[dict[str, Any]], ending: str, attempt: int, status: Status
) -> None:
    """Receivers find the outcome in the record; with retries left the run is running."""
    container.run("outcome", ending, attempt=attempt)

    (end,) = ends
    assert (end["status"], end["stored"]) == (status, status)
    assert (end["error"] is None) == (ending == "text")


def test_job_skipped_is_sent_after_the_record(
    database: str, ends: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Receivers find the run recorded as skipped."""

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
    assert [(end["status"], end["stored"]) for end in ends] == both


def test_job_finished_is_sent_without_a_record(
    ends: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If the outcome cannot be recorded, the run object still has it."""

    def broken(*args: Any, **values: Any) -> None:
        raise Error("gone")

    monkeypatch.setattr(Attempt, "_record", broken)
    monkeypatch.setattr(deadlines, "RECORD_END_LIMIT_SECONDS", 0.0)
    with caplog.at_level(logging.INFO, "cloudrun_jobs"):
        echo.Command().delay(partner=7)

    (end,) = ends
    assert (end["status"], end["stored"], end["error"]) == (Status.SUCCEEDED, Status.RUNNING, None)
    assert end["run"].result == {"words": [], "partner": 7, "note": None}
    actions = [record.__dict__["action"] for record in caplog.records]
    assert actions == ["job_started", "run_record_failed", "job_finished", "job_delayed"]


def test_job_finished_has_the_outcome_of_another_process(
    ends: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another process has ended the run, the signal has that outcome."""
    ended = JobRun.objects.filter
    monkeypatch.setattr(echo.Command, "run", lambda self, **options: ended().update(status=Status.CANCELLED))
    echo.Command().delay()

    assert [(end["status"], end["stored"]) for end in ends] == [(Status.CANCELLED, Status.CANCELLED)]


def test_completed_work_is_not_recorded_as_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """If locks are released slowly after SIGTERM, the success is recorded before SIGKILL."""
    left: list[int] = []
    monkeypatch.setattr(os, "_exit", left.append)
    run = request()
    with begin(run) as attempt:
        assert isinstance(attempt, Attempt)
        attempt.succeed("done")
        attempt.terminate(Termination())
        seen = JobRun.objects.get()

    assert (left, seen.status, seen.result) == ([0], Status.SUCCEEDED, "done")


def test_a_second_sigterm_does_not_interrupt_clean_up(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is interrupted once."""
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


def test_sigterm_in_an_inline_job_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller of delay() gets the interrupt instead of a failed job."""
    monkeypatch.setattr(echo.Command, "run", lambda self, **options: signal.raise_signal(signal.SIGTERM))

    with pytest.raises(JobInterrupted):
        echo.Command().delay()
    assert (JobRun.objects.get().status, JobRun.objects.get().reason) == (Status.FAILED, "interrupted")


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make run() of the first attempt receive SIGTERM, and a later one work; record the reasons."""
    reasons: list[str] = []

    def run(self: CloudRunJobs, **options: Any) -> str:
        if os.environ["CLOUD_RUN_TASK_ATTEMPT"] != "0":
            return "done"
        try:
            signal.raise_signal(signal.SIGTERM)
        except JobInterrupted as error:
            reasons.append(error.reason)
            raise
        return "never"

    monkeypatch.setattr(echo.Command, "run", run)
    monkeypatch.setattr(outcome.Command, "run", run)
    return reasons


def test_the_work_of_an_interrupted_attempt_is_done_by_the_next(
    container: Container, interrupted: list[str]
) -> None:
    """SIGTERM before the timeout is no cancellation: the machine may have been shut down."""
    assert container.run("outcome", "none") == 143
    assert JobRun.objects.get().status == Status.RUNNING
    assert container.run("outcome", "none", attempt=1) == 0

    run = JobRun.objects.get()
    assert (run.status, run.reason, run.result, run.retried_count) == (Status.SUCCEEDED, "", "done", 1)
    assert interrupted == ["interrupted"]


def test_each_interrupted_task_is_retried(container: Container, interrupted: list[str]) -> None:
    """An interrupted task keeps the run open, and its next attempt works, whatever the other tasks did."""
    for index in range(3):
        assert container.run("outcome", "none", index=index, count=3) == 143
    for index in range(3):
        assert JobRun.objects.get().status == Status.RUNNING
        assert container.run("outcome", "none", index=index, count=3, attempt=1) == 0

    run = JobRun.objects.get()
    assert (run.status, run.result, run.cancelled_count) == (Status.SUCCEEDED, ["done"] * 3, 0)


@pytest.mark.parametrize("count", [1, 2])
def test_the_last_attempt_that_is_interrupted_fails(
    container: Container, interrupted: list[str], count: int
) -> None:
    """Without retries left the run fails, with a reason of its own."""
    for index in range(count):
        assert container.run("echo", index=index, count=count) == 143

    run = JobRun.objects.get()
    assert (run.status, run.reason, run.failed_count) == (Status.FAILED, "interrupted", count)
    assert set(run.tasks.values_list("status", "reason", "exit_code")) == {(Status.FAILED, "interrupted", 143)}


@pytest.mark.parametrize("name", ["echo", "outcome"])
def test_a_requested_cancellation_is_recorded_as_such(
    container: Container, interrupted: list[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """After cancel(), SIGTERM cancels the run, with or without retries left, and no retry works."""
    module = {"echo": echo, "outcome": outcome}[name]
    run = module.Command.run

    def cancelled(self: CloudRunJobs, **options: Any) -> Any:
        JobRun.objects.update(cancel_requested_at=Now())
        return run(self, **options)

    monkeypatch.setattr(module.Command, "run", cancelled)

    assert container.run(name, *(["none"] if name == "outcome" else [])) == 143
    record = JobRun.objects.get()
    assert (record.status, record.reason, record.cancelled_count) == (Status.CANCELLED, "cancelled", 1)
    assert container.run(name, *(["none"] if name == "outcome" else []), attempt=1) == 0
    assert JobRun.objects.get().status == Status.CANCELLED


def test_the_next_job_of_a_process_handles_sigterm(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script may run a second job after the first one ignored further signals."""
    monkeypatch.setattr(echo.Command, "run", lambda self, **options: signal.raise_signal(signal.SIGTERM))
    container.environment()
    with interrupts.handle_signals() as interrupt:
        interrupt.ignore_further_signals()

    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    assert container.run("echo") == 143


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_forked_child_has_the_default_actions(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """multiprocessing ends its workers by SIGTERM: in a system call, a handler might not run."""
    seen: list[int] = []

    def run(self: echo.Command, **options: Any) -> None:
        child = os.fork()
        if child == 0:
            numbers = (signal.SIGTERM, signal.SIGTSTP, signal.SIGCONT)
            os._exit(sum(signal.getsignal(number) is not signal.SIG_DFL for number in numbers))
        seen.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        assert signal.getsignal(signal.SIGTERM) is on_sigterm

    monkeypatch.setattr(echo.Command, "run", run)

    assert container.run("echo") == 0
    assert seen == [0]


# A job that forks a child, to which SIGTERM comes at once: the hook runs before those of the package.
FORKING = """
import os, signal, time
os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))
import django
django.setup()
from django.core.management import execute_from_command_line
from tests.jobs.management.commands import outcome

def run(self, *args, **options):
    child = os.fork()
    if not child:
        time.sleep(300)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

outcome.Command.run = run
execute_from_command_line(["manage.py", "outcome", "none"])
"""


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_sigterm_during_a_fork_ends_the_child(database: str) -> None:
    """The signal is not lost in the hooks that run after the fork."""
    environment = {
        "DJANGO_SETTINGS_MODULE": "tests.runs.settings",
        "RUNS_DATABASE": json.dumps(database_settings(database)),
        "RUNS_ENVIRONMENT": "test",
    }
    done = subprocess.run(
        [sys.executable, "-c", FORKING],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert done.stdout == f"{-signal.SIGTERM}\n"


# A job whose clean-up after SIGTERM hangs. The arguments are its timeout and how it hangs.
HANGING = """
import sys, time
import django
django.setup()
from cloudrun_jobs.execution import termination
from django.core.management import execute_from_command_line
from tests.jobs.management.commands import outcome

termination.SIGTERM_CLEANUP_SECONDS = 2
timeout, hang = sys.argv[1:]
HANGS = {
    "sleep": lambda: time.sleep(300),
    "loop": lambda: any(number for number in iter(int, 1)),
    "without the interpreter": lambda: max(range(10**11)),
}

def run(self, *args, **options):
    try:
        print("works", flush=True)
        time.sleep(300)
    finally:
        print("cleans up", flush=True)
        HANGS[hang]()

outcome.Command.run = run
outcome.Command.timeout = int(timeout)
execute_from_command_line(["manage.py", "outcome", "none"])
"""


@contextmanager
def hanging(database: str, hang: str, timeout: int = 600, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Start a job outside Cloud Run, and let SIGTERM interrupt it: it is cleaning up and hangs."""
    environment = {
        "DJANGO_SETTINGS_MODULE": "tests.runs.settings",
        "RUNS_DATABASE": json.dumps(database_settings(database)),
        "RUNS_ENVIRONMENT": "test",
        **variables,
    }
    program = [sys.executable, "-c", HANGING, str(timeout), hang]
    options: dict[str, Any] = {"env": {**os.environ, **environment}, "cwd": ROOT, "text": True}
    with subprocess.Popen(program, stdout=subprocess.PIPE, **options) as process:
        assert process.stdout is not None
        try:
            assert next_line(process.stdout) == "works\n"
            process.send_signal(signal.SIGTERM)
            assert next_line(process.stdout) == "cleans up\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("database", "hang"),
    [("sqlite", "without the interpreter"), ("postgres", "sleep"), ("mariadb", "loop")],
    indirect=["database"],
)
def test_a_second_sigterm_ends_a_process_that_hangs(database: str, hang: str) -> None:
    """Outside Cloud Run the second signal has the default action, whatever the job does."""
    with hanging(database, hang) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.send_signal(signal.SIGTERM)

        assert process.wait(10) == -signal.SIGTERM


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # One database for each: they wait nine seconds.
def test_a_second_sigterm_is_ignored_in_a_container(database: str) -> None:
    """Cloud Run sends SIGKILL: the job has its time to clean up."""
    with hanging(database, "sleep", CLOUD_RUN_EXECUTION=EXECUTION) as process:
        process.send_signal(signal.SIGTERM)

        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        assert process.wait(15) == 143


@pytest.mark.parametrize(("database", "hang"), [("mariadb", "sleep"), ("postgres", "loop")], indirect=["database"])
def test_a_job_past_its_timeout_does_not_hang_for_ever(database: str, hang: str) -> None:
    """After SIGTERM and the timeout, the process records its outcome and ends: it renews its locks no more."""
    with hanging(database, hang, timeout=1) as process:
        assert process.wait(20) == 143

    run = JobRun.objects.get()
    assert (run.status, run.reason, run.error_class) == (Status.FAILED, "timeout", "JobInterrupted")


@pytest.mark.parametrize(
    ("in_container", "timeout", "seconds", "overdue"),
    [
        (True, 600, 7, False),
        (True, 600, 9, True),
        (True, 1, 9, True),
        (False, 600, 9, False),
        (False, 600, 599, False),
        (False, 600, 601, True),
        (False, 1, 7, False),
        (False, 1, 9, True),
        (False, None, 10**6, False),
    ],
)
def test_the_time_to_clean_up(
    monkeypatch: pytest.MonkeyPatch, in_container: bool, timeout: int | None, seconds: int, overdue: bool
) -> None:
    """A container has eight seconds after SIGTERM, another process at least until its timeout."""
    monkeypatch.setenv("CLOUD_RUN_EXECUTION", EXECUTION if in_container else "")
    now = time.monotonic()
    interrupt = Termination(timeout)
    monkeypatch.setattr(time, "monotonic", lambda: now + seconds)
    assert not interrupt.is_overdue()
    interrupt.terminated_at = now
    assert not interrupt.is_overdue()  # A server received the signal.
    interrupt.ends_process = True
    assert interrupt.is_overdue() == overdue


def attempted(run: JobRun, ending: str, **task: int) -> None:
    """Make one attempt of a task of `outcome`, which has two retries: it ends so."""
    if ending == "killed before it began":
        return
    with suppress(ZeroDivisionError), ExitStack() as process:
        made = process.enter_context(begin(run, command="outcome", **task))
        if ending == "failed":
            raise ZeroDivisionError
        assert isinstance(made, Attempt)
        made.succeed(None)
        if ending == "killed":  # Nothing is recorded.
            made._pid = 0
            made.heartbeat.stop()


SEQUENCES = [
    ("killed", "killed"),
    ("killed", "succeeded"),
    ("killed before it began", "failed"),
    ("failed", "killed before it began"),
    ("failed", "succeeded"),
    ("succeeded",),
]


@pytest.mark.parametrize("endings", SEQUENCES, ids=" then ".join)
def test_each_retried_task_is_counted_once(endings: tuple[str, ...]) -> None:
    """A task is retried when another attempt begins, whatever ended the ones before; the others are not."""
    run = request("outcome")
    attempted(run, "killed", index=1, count=3)
    for number, ending in enumerate(endings):
        attempted(run, ending, index=0, count=3, attempt=number)
        if ending == "succeeded":
            break
    else:
        attempted(run, "succeeded", index=0, count=3, attempt=2)
    run.refresh_from_db()
    tasks = 0 if endings[0] == "succeeded" else 1
    assert run.retried_count == tasks

    attempted(run, "succeeded", index=1, count=3, attempt=1)
    attempted(run, "succeeded", index=2, count=3)
    run.refresh_from_db()
    assert (run.status, run.retried_count) == (Status.SUCCEEDED, tasks + 1)
