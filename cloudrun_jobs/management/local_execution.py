"""Run the tasks of an execution as processes on this machine, with the variables that Cloud Run would set."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import RLock, Thread
from typing import IO

from django.core.management.base import OutputWrapper
from django.db import Error, connections
from django.utils.autoreload import get_child_arguments

from cloudrun_jobs.environ import LOCAL_VARIABLE
from cloudrun_jobs.exceptions import sentence
from cloudrun_jobs.locks import executions
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.operations import ExecutionState
from cloudrun_jobs.process.connections import close
from cloudrun_jobs.runs import local_output
from cloudrun_jobs.runs.database import database_alias
from cloudrun_jobs.runs.requester import current_requester
from cloudrun_jobs.spec import JobSpec
from cloudrun_jobs.terminal import ProgressBar

POLL_INTERVAL = 0.05  # seconds
PROGRESS_INTERVAL = 1.0  # seconds

# Between SIGTERM and SIGKILL, as on Cloud Run: a task records its outcome within eight seconds.
GRACE_SECONDS = 9.5


class Cancelled(Exception):
    """`cancel` requested the end of the run."""


class LocalExecution:
    """One execution: a process for each task, which is restarted up to `max_retries` times."""

    def __init__(
        self,
        spec: JobSpec,
        arguments: Sequence[str],
        tasks: int,
        streams: tuple[OutputWrapper, OutputWrapper],
        env: Mapping[str, str],
    ) -> None:
        self.name = f"{spec.name[:56].rstrip('-')}-{secrets.token_hex(3)}"
        self._spec = spec
        self._arguments = arguments
        self._env = env
        self._output = Output(*streams, local_output.Recorder(self.name))
        self._tasks = [Task(index, tasks) for index in range(tasks)]

    @property
    def run(self) -> JobRun | None:
        """The record of the run, which the first task inserts."""
        return JobRun.objects.filter(execution=self.name).first()

    @property
    def failed(self) -> list[Task]:
        """The tasks whose last attempt failed, or that never started."""
        return [task for task in self._tasks if task.status != 0]

    def wait(self) -> None:
        """Start the tasks, and wait until they have ended. Ctrl-C, SIGTERM and a cancellation end them."""
        try:
            with _sigterm_as_ctrl_c():
                self._supervise()
        except (KeyboardInterrupt, Cancelled):
            with _ignoring_database_errors():
                JobRun.objects.filter(execution=self.name).update(cancel_requested_at=Now())
            raise
        finally:
            self._end()
            self._output.erase()
            self._output.recorder.close()
            with _ignoring_database_errors():
                self._record()

    def _supervise(self) -> None:
        at_once = self._spec.task_parallelism or len(self._tasks)
        reported_at = time.monotonic()
        while unfinished := [task for task in self._tasks if not task.is_finished]:
            for task in unfinished[:at_once]:
                self._advance(task)
            if time.monotonic() - reported_at >= PROGRESS_INTERVAL:
                reported_at = time.monotonic()
                self._report()
            time.sleep(POLL_INTERVAL)

    def _advance(self, task: Task) -> None:
        """Start the task's first or next attempt, unless one is running or the task has ended."""
        if task.process is not None and (status := task.poll()) in {None, 0}:
            return
        if task.process is not None:
            task.is_finished = task.attempt >= self._spec.max_retries
            retried = "" if task.is_finished else f"; attempt {task.attempt + 1} starts"
            self._output.write(task, f"attempt {task.attempt} {_end_of(status)}{retried}")
        if not task.is_finished:
            self._start(task)

    def _start(self, task: Task) -> None:
        task.start(self._command_line(), self._environment(), self._output)

    def _command_line(self) -> list[str]:
        # The way this process was started: `python manage.py`, `python -m django` or `django-admin`.
        this = get_child_arguments()
        return [*this[: len(this) - len(sys.argv[1:])], *self._arguments]

    def _environment(self) -> dict[str, str]:
        variables = {"CLOUD_RUN_JOB": self._spec.name, "CLOUD_RUN_EXECUTION": self.name}
        user = {LOCAL_VARIABLE: current_requester(), "PYTHONUNBUFFERED": "1"}
        return {**os.environ, **self._env, **variables, **user}

    def _report(self) -> None:
        with _ignoring_database_errors():
            run = self.run
            if run is not None and run.cancel_requested_at is not None:
                raise Cancelled
            progress = run and run.progress
            if progress:
                self._output.draw(progress.done, progress.total, str(progress))

    def _end(self) -> None:
        """End the processes that are running: with SIGTERM, and after the grace period with SIGKILL."""
        running = [task for task in self._tasks if task.is_running]
        for task in running:
            task.signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        with suppress(KeyboardInterrupt):  # A second Ctrl-C ends the wait.
            while any(task.is_running for task in running) and time.monotonic() < deadline:
                time.sleep(POLL_INTERVAL)
        for task in self._tasks:
            task.end()

    def _record(self) -> None:
        """End the record of a run whose tasks were killed, and release its locks, as `reconcile` does."""
        run, count, failed = self.run, len(self._tasks), len(self.failed)
        if run is None or run.is_finished:
            return
        status = "cancelled" if run.cancel_requested_at else "failed"
        ends = (f"task {task.index} {_end_of(task.status)}" for task in self.failed if task.process)
        state = ExecutionState(
            status=status,
            reason=status,
            message=sentence(", ".join(ends)),
            task_count=count,
            failed_count=failed,
            succeeded_count=count - failed,
        )
        if not executions.settle(run, state, self.name):
            # All tasks had ended, and nothing starts another process that calls `reduce()`.
            run.transition(Status.FAILED, finished_at=Now(), reason="reduce")


class Task:
    """One task: the process of its current attempt."""

    def __init__(self, index: int, count: int) -> None:
        self.index = index
        self.attempt = -1
        self.process: subprocess.Popen[str] | None = None
        self.is_finished = False
        self._count = count
        self._readers: list[Thread] = []

    @property
    def prefix(self) -> str:
        """The text at the start of each line of the task."""
        return f"[{self.index + 1}/{self._count}] "

    @property
    def status(self) -> int | None:
        """The exit status of the last attempt; None if there was none."""
        return None if self.process is None else self.process.returncode

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, command_line: Sequence[str], environment: dict[str, str], output: Output) -> None:
        """Start the next attempt."""
        self.attempt += 1
        numbers = {"INDEX": self.index, "ATTEMPT": self.attempt, "COUNT": self._count}
        variables = {f"CLOUD_RUN_TASK_{name}": str(number) for name, number in numbers.items()}
        self.process = subprocess.Popen(  # noqa: S603  (this program, with the caller's arguments)
            command_line,
            env={**environment, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            start_new_session=True,  # The terminal sends Ctrl-C to this process alone.
        )
        pipes = ((self.process.stdout, output.stdout), (self.process.stderr, output.stderr))
        self._readers = [Thread(target=output.copy, args=(self, *pipe), daemon=True) for pipe in pipes]
        for reader in self._readers:
            reader.start()

    def poll(self) -> int | None:
        """Return the exit status of the attempt, once all of its output is written; None while it is running."""
        status = self.process.poll() if self.process else None
        if status is not None:
            self._join()
            self.is_finished = status == 0
        return status

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def end(self) -> None:
        """Kill the process if it is running, and write the rest of its output."""
        if self.is_running:
            self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
            self._join()

    def _join(self) -> None:
        for reader in self._readers:
            reader.join(timeout=1)  # A process that the task has started may keep the pipe open.


class Output:
    """Writes the lines of all tasks, and one line of progress on a terminal."""

    def __init__(self, stdout: OutputWrapper, stderr: OutputWrapper, recorder: local_output.Recorder) -> None:
        self.stdout, self.stderr, self.recorder = stdout, stderr, recorder
        self._bar = ProgressBar(stderr)
        self._lock = RLock()

    def copy(self, task: Task, source: IO[str], target: OutputWrapper) -> None:
        """Write each line of the source with the task's prefix, and record it."""
        severity, attempt = "ERROR" if target is self.stderr else "INFO", task.attempt
        with source:
            for line in source:
                text, own_severity = local_output.entry_of(line.rstrip("\n"))
                self.recorder.write(text, severity=own_severity or severity, task=task.index, attempt=attempt)
                with self._lock:
                    self._bar.erase()
                    target.write(task.prefix + text, str)
                    target.flush()

    def write(self, task: Task, message: str) -> None:
        """Write a message about the task to stderr, and record it."""
        self.recorder.write(message, severity="NOTICE", task=task.index)
        with self._lock:
            self._bar.erase()
            self.stderr.write(task.prefix + message, str)

    def draw(self, done: int, total: int | None, text: str) -> None:
        with self._lock:
            self._bar.draw(done, total, text)

    def erase(self) -> None:
        with self._lock:
            self._bar.erase()


def _end_of(status: int | None) -> str:
    """Return how a process with this exit status has ended."""
    if status is not None and status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"exited with status {status}"


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _ignoring_database_errors() -> Iterator[None]:
    """Continue without the record: the tasks report that the database is unavailable."""
    try:
        yield
    except Error:
        close(connections[database_alias()])
