"""Start a run, and report the failure of one that ran in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any

from django.core.management.base import CommandError
from django.db.models.signals import post_save

from cloudrun_jobs.exceptions import CloudRunJobsError, JobInterrupted, LeaseLost, ServiceError, sentence
from cloudrun_jobs.management.exits import FAILED, INTERRUPTED, status_of
from cloudrun_jobs.management.following import error_of, interrupted, state_text
from cloudrun_jobs.management.output import next_command
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.operations import Operation

FAILURES = (Status.FAILED, Status.LOST, Status.CANCELLED)


def start(name: str, request: Callable[[], Operation]) -> Operation:
    """Request a run of the job. Raises `CommandError` if it ran in this process and failed."""
    with _recorded(name) as runs:
        try:
            return request()
        except JobInterrupted:
            raise
        except KeyboardInterrupt:
            if (run := _reread(runs)) is None:
                raise
            raise CommandError(interrupted(run), returncode=INTERRUPTED) from None
        except (Exception, SystemExit, LeaseLost) as error:
            if (described := _describe(error, _reread(runs))) is None:
                raise
            raise described from error


@contextmanager
def _recorded(name: str) -> Iterator[list[JobRun]]:
    """Collect the runs of the job that this thread records: the first is the one that was requested."""
    runs, thread = list[JobRun](), get_ident()

    def collect(instance: JobRun, *, created: bool, **other: Any) -> None:
        if created and instance.command == name and get_ident() == thread:
            runs.append(instance)

    post_save.connect(collect, JobRun, weak=False)
    try:
        yield runs
    finally:
        post_save.disconnect(collect, JobRun)


def _reread(runs: list[JobRun]) -> JobRun | None:
    return JobRun.objects.filter(pk=runs[0].pk).first() if runs else None


def _describe(error: BaseException, run: JobRun | None) -> CommandError | None:
    """Return the error as the outcome of the run; None if the run did not raise it."""
    if isinstance(error, ServiceError) and run is not None and run.started_at is None:
        message = f"{sentence(str(error))} {next_command('show', run.pk)} shows the run."
        return CommandError(message, returncode=status_of(error))
    if run is not None and run.status in FAILURES:
        message = error_of(run) or f"{state_text(run)}."
        shown = f"{next_command('show', run.pk, '--traceback')} shows where."
        return CommandError(f"The run failed. {message} {shown}", returncode=FAILED)
    if isinstance(error, CommandError | CloudRunJobsError):
        return None
    shown = f" {next_command('show', run.pk)} shows it." if run else ""
    return CommandError(
        f"The run failed. {type(error).__name__}: {sentence(str(error))}{shown}", returncode=FAILED
    )
