"""Wait for the end of a run, and write its log and its progress meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic, sleep

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from cloudrun_jobs.backends.log_entries import LogEntry
from cloudrun_jobs.exceptions import sentence
from cloudrun_jobs.management.exits import FAILED, INTERRUPTED
from cloudrun_jobs.management.log_sources import Source
from cloudrun_jobs.management.output import next_command
from cloudrun_jobs.models import JobRun, Progress, Status
from cloudrun_jobs.runs.data import read_progress
from cloudrun_jobs.runs.database import retry_until_available
from cloudrun_jobs.terminal import ProgressBar

POLL_INTERVAL = 1.0  # seconds, between two reads of the record
REFRESH_INTERVALS = (5.0, 20.0)  # seconds, between two reads of the execution: the first, and the longest
RECORD_TIMEOUT = 60.0  # seconds for which the database may be unavailable
MAX_ERROR = 500  # characters
SUCCESSFUL = (Status.SUCCEEDED, Status.SKIPPED)

Write = Callable[[JobRun, Iterable[LogEntry]], None]


def follow(
    command: BaseCommand, run: JobRun, source: Source | None = None, write: Write = lambda run, entries: None
) -> JobRun:
    """Return the run once it has ended and `write` has got its whole log.

    Ctrl-C leaves the run alone. Raises `CommandError`.
    """
    bar = ProgressBar(command.stderr)

    def write_above_bar(found: JobRun, entries: Iterable[LogEntry]) -> None:
        if entries := list(entries):
            bar.erase()
            write(found, entries)

    try:
        return _Follower(run, source, write_above_bar, bar).run_to_end()
    except KeyboardInterrupt:
        raise CommandError(interrupted(run), returncode=INTERRUPTED) from None
    finally:
        bar.erase()


class _Follower:
    def __init__(self, run: JobRun, source: Source | None, write: Write, bar: ProgressBar) -> None:
        self._run, self._source, self._write, self._bar = run, source, write, bar
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
            self._write(run, self._source.read(run))
            if (delay := self._source.delay) and (saw_it_run or _ended_within(run, delay)):
                sleep(delay)
                self._write(run, self._source.read(run))
        return run

    def _reload(self) -> JobRun:
        """Read the record; now and then, update it from the execution, whose container may have died."""
        found = retry_until_available(lambda: [*read_progress([self._run.pk])], seconds=RECORD_TIMEOUT)
        if not found:
            raise CommandError(f"{self._run}: its record was deleted.", returncode=FAILED)
        [(run, progress)] = found
        if not run.is_finished:
            self._draw(run, progress)
        if monotonic() >= self._next_refresh and not run.is_finished:
            run = retry_until_available(partial(run.refresh), seconds=RECORD_TIMEOUT)
            self._next_refresh = monotonic() + self._refresh_interval
            self._refresh_interval = min(self._refresh_interval * 1.5, self._longest_interval)
        return run

    def _read_if_due(self, run: JobRun) -> None:
        if self._source is not None and monotonic() >= self._next_read:
            self._write(run, self._source.read(run))
            self._next_read = monotonic() + self._source.interval

    def _draw(self, run: JobRun, progress: Progress | None) -> None:
        if progress is not None:
            self._bar.draw(progress.done, progress.total, str(progress))
        else:
            since = run.started_at or run.created_at
            seconds = int((timezone.now() - since).total_seconds())
            self._bar.draw(0, None, f"{run.command}: {run.status}, {max(seconds, 0)} s")


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
    """Return what becomes of the run after Ctrl-C."""
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
