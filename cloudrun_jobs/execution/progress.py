"""How far a job is, told while it runs: to its record, to the log, and on a terminal."""

from __future__ import annotations

import os
import time
from operator import index
from typing import TYPE_CHECKING

from cloudrun_jobs import environ
from cloudrun_jobs.exceptions import InvalidProgress
from cloudrun_jobs.execution.outcome import storable
from cloudrun_jobs.models import Progress
from cloudrun_jobs.signals import job_progressed
from cloudrun_jobs.terminal import ProgressBar

if TYPE_CHECKING:
    from cloudrun_jobs.command import CloudRunJobs

PAUSE = 1.0  # Seconds between two signals.
MOST = 2**63 - 1  # What a column of the database holds.
MAX_TEXT = 200


class ProgressReporter:
    """What one run tells, from its first `progress()` to its end. Outside of a run, nobody listens."""

    def __init__(self, job: CloudRunJobs) -> None:
        self._job, self._attempt = job, job._attempt
        self._untold: Progress | None = None
        self._told_at = -PAUSE
        self._bar = ProgressBar(job.stderr) if self._attempt and _is_watched(job) else None

    def tell(self, done: int, total: int | None, text: str) -> None:
        """Tell where the job is, to those who have not just been told."""
        progress = _checked(done, total, text)
        if self._attempt is None:
            return
        self._attempt.heartbeat.note(progress.done, progress.total, progress.text)
        self._untold = progress
        if time.monotonic() - self._told_at >= PAUSE:
            self._signal()
        if self._bar:
            self._bar.draw(progress)

    def stop(self) -> None:
        """Tell what came last, and take the bar away."""
        self._signal()
        if self._bar:
            self._bar.erase()

    def _signal(self) -> None:
        progress, self._untold = self._untold, None
        if self._attempt is None or progress is None:
            return
        self._told_at = time.monotonic()
        job_progressed.send_robust(
            type(self._job),
            spec=self._job.spec,
            run=self._attempt.run,
            task=environ.current_task(),
            done=progress.done,
            total=progress.total,
            text=progress.text,
        )


def _is_watched(job: CloudRunJobs) -> bool:
    return job._verbosity > 0 and job.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _checked(done: int, total: int | None, text: str) -> Progress:
    """Return it in a form that can be kept. A total is an estimate: that it was too small breaks no job."""
    done = _count("done", done)
    total = None if total is None else max(_count("total", total), done)
    return Progress(done, total, storable(str(text))[:MAX_TEXT])


def _count(name: str, value: int) -> int:
    try:
        number = index(value)  # Also of numpy's numbers.
    except TypeError:
        number = -1
    if 0 <= number <= MOST:
        return number
    hint = "Count what is done: rows, files, bytes."
    raise InvalidProgress(f"progress(): expected {name} to be a whole number from 0 up, got {value!r}.", hint=hint)
