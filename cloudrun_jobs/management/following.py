"""Wait for the end of a run, and write its log and its progress meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from time import monotonic, sleep

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from cloudrun_jobs import backends
from cloudrun_jobs.backends.base import TRANSIENT_ERRORS
from cloudrun_jobs.backends.log_entries import LogEntry
from cloudrun_jobs.exceptions import ServiceError, sentence
from cloudrun_jobs.management.exits import ERROR, FAILED, INTERRUPTED
from cloudrun_jobs.management.log_sources import Source
from cloudrun_jobs.management.output import next_command, write_message
from cloudrun_jobs.models import JobRun, Progress, Status
from cloudrun_jobs.runs.data import read_progress
from cloudrun_jobs.runs.database import retry_until_available
from cloudrun_jobs.terminal import ProgressBar

POLL_INTERVAL = 1.0  # seconds, between two reads of the record
REFRESH_INTERVALS = (5.0, 20.0)  # seconds, between two reads of the execution: the first, and the longest
RECORD_TIMEOUT = 60.0  # seconds for which the database may be unavailable
SERVICE_TIMEOUT = 300.0  # seconds for which a service may be unavailable
MAX_ERROR = 500  # characters
SUCCESSFUL = (Status.SUCCEEDED, Status.SKIPPED)

Write = Callable[[JobRun, Iterable[LogEntry]], None]


def follow(
    command: BaseCommand, run: JobRun, source: Source | None = None, write: Write = lambda run, entries: None
) -> JobRun:
    """Return the run when it has ended and its whole log was passed to `write`.

    Ctrl-C does not stop the run. Raises `CommandError`.
    """
    bar = ProgressBar(command.stderr)

    def write_above_bar(found: JobRun, entries: Iterable[LogEntry]) -> None:
        for entry in (remaining := iter(entries)):
            bar.erase()
            write(found, chain((entry,), remaining))

    def warn(message: str) -> None:
        bar.erase()
        write_message(command, message, command.style.WARNING)

    try:
        return _Follower(run, source, write_above_bar, bar, warn).run_to_end()
    except KeyboardInterrupt:
        raise CommandError(interrupted(run), returncode=INTERRUPTED) from None
    finally:
        bar.erase()


class _Follower:
    def __init__(
        self, run: JobRun, source: Source | None, write: Write, bar: ProgressBar, warn: Callable[[str], object]
    ) -> None:
        self._run, self._source, self._write, self._bar, self._warn = run, source, write, bar, warn
        self._failing_since = dict[str, float]()  # By the name of the call.
        self._next_read = 0.0
        self._refresh_interval, self._longest_interval = REFRESH_INTERVALS
        self._next_refresh = monotonic() + self._refresh_interval

    def run_to_end(self) -> JobRun:
        saw_it_run = False
        while not (run := self._reload()).is_finished:
            saw_it_run = True
            self._read_if_due(run)
            sleep(min(POLL_INTERVAL, self._source.interval if self._source else POLL_INTERVAL))
        if self._source is not None:
            self._read_to_end(run, self._source)
            if (delay := self._source.delay) and (saw_it_run or _ended_within(run, delay)):
                sleep(delay)
                self._read_to_end(run, self._source)
        return run

    def _read_to_end(self, run: JobRun, source: Source) -> None:
        while not self._tolerating(run, "log", lambda: self._write(run, source.read(run))):
            sleep(source.interval)

    def _tolerating(self, run: JobRun, call: str, work: Callable[[], object]) -> bool:
        """Do the work; return False if the service is unavailable, and warn the first time.

        Raises `CommandError` after five minutes, and at once after another error of the service.
        """
        try:
            work()
        except ServiceError as error:
            is_first = call not in self._failing_since
            since = self._failing_since.setdefault(call, monotonic())
            if not isinstance(error, TRANSIENT_ERRORS) or monotonic() - since >= SERVICE_TIMEOUT:
                raise CommandError(f"{sentence(str(error))} {_continuation(run)}", returncode=ERROR) from error
            if is_first:
                self._warn(f"{sentence(str(error))} Trying again.")
            return False
        self._failing_since.pop(call, None)
        return True

    def _reload(self) -> JobRun:
        """Read the record; at intervals, update it from the execution, whose container may have died."""
        found = retry_until_available(lambda: [*read_progress([self._run.pk])], seconds=RECORD_TIMEOUT)
        if not found:
            raise CommandError(f"{self._run}: its record was deleted.", returncode=FAILED)
        [(run, progress)] = found
        if not run.is_finished:
            self._draw(run, progress)
        if monotonic() >= self._next_refresh and not run.is_finished:
            refresh = partial(retry_until_available, partial(_refresh, run), seconds=RECORD_TIMEOUT)
            self._tolerating(run, "execution", refresh)
            self._next_refresh = monotonic() + self._refresh_interval
            self._refresh_interval = min(self._refresh_interval * 1.5, self._longest_interval)
        return run

    def _read_if_due(self, run: JobRun) -> None:
        if self._source is not None and monotonic() >= self._next_read:
            source = self._source
            self._tolerating(run, "log", lambda: self._write(run, source.read(run)))
            self._next_read = monotonic() + self._source.interval

    def _draw(self, run: JobRun, progress: Progress | None) -> None:
        if progress is not None:
            self._bar.draw(progress.done, progress.total, str(progress))
        else:
            since = run.started_at or run.created_at
            seconds = int((timezone.now() - since).total_seconds())
            self._bar.draw(0, None, f"{run.command}: {run.status}, {max(seconds, 0)} s")


def _refresh(run: JobRun) -> None:
    """Update the record if the execution has ended. Unlike `refresh()`, it raises each `ServiceError`."""
    backend = backends.for_run(run)
    is_known = bool(run.execution_name) and backend.tracks_executions
    if not is_known or backend.get_state(run).status is not None:
        run.refresh()


def _continuation(run: JobRun) -> str:
    if run.is_finished:
        return f"{state_text(run)}. {next_command('logs', run.pk)} prints its log."
    return f"Run {str(run.pk)[:8]} continues. {next_command('logs', run.pk, '--follow')} follows it."


def _ended_within(run: JobRun, seconds: float) -> bool:
    return run.finished_at is not None and (timezone.now() - run.finished_at).total_seconds() < seconds


def check_outcome(run: JobRun) -> None:
    """Raise `CommandError` with exit status 1 if the run has not succeeded."""
    if run.status in SUCCESSFUL:
        return
    shown = f"{next_command('show', run.pk)} shows the run."
    message = " ".join(filter(None, (f"{state_text(run)}.", error_of(run), shown)))
    raise CommandError(message, returncode=FAILED)


def interrupted(run: JobRun) -> str:
    """Return the message after Ctrl-C: the state of the run, and the next command."""
    if run.is_finished:
        return f"Interrupted: {state_text(run, 'the run')}. {next_command('show', run.pk)} shows it."
    continues = f"Interrupted: run {str(run.pk)[:8]} continues."
    return f"{continues} {next_command('cancel', run.pk)} cancels it."


def state_text(run: JobRun, subject: str = "The run") -> str:
    """Return the status of the run as a sentence without its full stop."""
    verb = "has" if run.status in {Status.SUCCEEDED, Status.FAILED} else "was" if run.is_finished else "is"
    reason = f" ({run.reason})" if run.reason not in {"", run.status} else ""
    return f"{subject} {verb} {run.status}{reason}"


def error_of(run: JobRun | None) -> str:
    """Return the recorded error as a sentence, shortened."""
    error = ": ".join(filter(None, (run.error_class, run.error_message))) if run else ""
    return sentence(error if len(error) <= MAX_ERROR else f"{error[:MAX_ERROR]}…")
