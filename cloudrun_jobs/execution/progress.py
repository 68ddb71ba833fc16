"""Report a job's progress to its record, to signal receivers and on a terminal."""

from __future__ import annotations

import time
from operator import index
from typing import TYPE_CHECKING

from cloudrun_jobs import environ
from cloudrun_jobs.argv.redaction import mask
from cloudrun_jobs.exceptions import InvalidProgress
from cloudrun_jobs.models import Progress
from cloudrun_jobs.models.values import storable
from cloudrun_jobs.signals import job_progressed
from cloudrun_jobs.terminal import AboveBar, ProgressBar

if TYPE_CHECKING:
    from cloudrun_jobs.execution.active import ActiveRun
    from cloudrun_jobs.execution.attempt import Attempt
    from cloudrun_jobs.spec.command import JobCommand

SIGNAL_INTERVAL = 1.0  # seconds
MAX_COUNT = 2**63 - 1  # The largest value of a database column.
MAX_TEXT = 200  # characters


def report(job: JobCommand, done: int, total: int | None, text: str) -> None:
    """Report the progress of the job's run; outside a run, only check the values. Raises `InvalidProgress`.

    Outside the main thread, also raise `JobInterrupted` or `LeaseLost`: no signal handler does so there.
    """
    progress = _validate(done, total, text)
    active: ActiveRun | None = job._active
    if active is None or active.attempt is None:
        return
    _reporter(job, active, active.attempt).report(progress)
    active.raise_if_interrupted()


def report_items(
    job: JobCommand, active: ActiveRun, attempt: Attempt, done: int, total: int | None, text: str
) -> None:
    """Report the progress of a loop over the run's items."""
    _reporter(job, active, attempt).report(_validate(done, total, text))


def _reporter(job: JobCommand, active: ActiveRun, attempt: Attempt) -> ProgressReporter:
    if active.progress is None:
        active.progress = ProgressReporter(job, attempt, verbosity=active.verbosity)
    return active.progress


class ProgressReporter:
    """Reports the progress of one run, from its first `progress()` to its end."""

    def __init__(self, job: JobCommand, attempt: Attempt, *, verbosity: int) -> None:
        self._job, self._attempt = job, attempt
        self._pending: Progress | None = None
        self._signalled_at = -SIGNAL_INTERVAL
        self._bar = ProgressBar(job.stderr, visible=verbosity > 0)
        if job.stdout.isatty():
            job.stdout._out = AboveBar(job.stdout._out, self._bar)  # type: ignore[attr-defined]  # django-stubs omits it

    def report(self, progress: Progress) -> None:
        """Pass the progress to the heartbeat, to the signal's receivers and to the terminal."""
        self._attempt.heartbeat.note(progress.done, progress.total, progress.text)
        self._pending = progress
        if time.monotonic() - self._signalled_at >= SIGNAL_INTERVAL:
            self._signal()
        self._bar.draw(progress.done, progress.total, str(progress))

    def stop(self) -> None:
        """Send the latest progress and erase the bar."""
        self._signal()
        self._bar.erase()
        if isinstance(self._job.stdout._out, AboveBar):
            self._job.stdout._out = self._job.stdout._out.stream

    def _signal(self) -> None:
        progress, self._pending = self._pending, None
        if progress is None:
            return
        self._signalled_at = time.monotonic()
        job_progressed.send_robust(
            type(self._job),
            spec=self._job.spec,
            run=self._attempt.run,
            task=environ.current_task(),
            **progress._asdict(),
        )


def _validate(done: int, total: int | None, text: str) -> Progress:
    """Return the values in a form that can be stored. A total is an estimate: one that is too small is raised."""
    done = _count("done", done)
    total = None if total is None else max(_count("total", total), done)
    return Progress(done, total, storable(mask(str(text)))[:MAX_TEXT])


def _count(name: str, value: int) -> int:
    try:
        number = index(value)  # Also accepts numpy's integers.
    except TypeError:
        number = -1
    if 0 <= number <= MAX_COUNT:
        return number
    hint = "Count what is done: rows, files, bytes."
    raise InvalidProgress(f"progress(): expected {name} to be a whole number from 0 up, got {value!r}.", hint=hint)
