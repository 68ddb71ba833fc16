"""Start a run, and report the failure of one that ran in this process."""

from __future__ import annotations

from collections.abc import Callable

from django.core.management.base import CommandError
from django.db import Error

from cloudrun_jobs import backends
from cloudrun_jobs.exceptions import CloudRunJobsError, JobInterrupted
from cloudrun_jobs.management.exits import FAILED
from cloudrun_jobs.management.following import error_of
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.operations import Operation
from cloudrun_jobs.runs.requester import current_requester


def start(name: str, request: Callable[[], Operation]) -> Operation:
    """Request a run of the job. Raises `CommandError` if it ran in this process and failed."""
    if not any(backend.runs_in_process for backend in backends.configured()):
        return request()
    try:
        return request()
    except (CloudRunJobsError, Error, JobInterrupted):
        raise
    except (Exception, SystemExit) as error:
        raise _failure(name, error) from error


def _failure(name: str, error: BaseException) -> CommandError:
    runs = JobRun.objects.for_command(name).failed().filter(requested_by=current_requester())
    run = runs.newest_first().first()
    shown = f"{next_command(run.pk, 'show', '--traceback')} shows where." if run else ""
    message = error_of(run) or f"{type(error).__name__}: {error}."
    return CommandError(" ".join(filter(None, ("The run failed.", message, shown))), returncode=FAILED)


def next_command(run_id: object, subcommand: str, *options: str) -> str:
    """Return the command line, quoted, that continues with a run."""
    return f"`{' '.join(['manage.py cloudrun_jobs', subcommand, str(run_id)[:8], *options])}`"
