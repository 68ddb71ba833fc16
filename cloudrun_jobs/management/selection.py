"""Select the backend and the jobs that a command deploys or exports."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence

from django.core.management.base import CommandError

from cloudrun_jobs import conf
from cloudrun_jobs.backends.cloudrun import CloudRunBackend
from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.deploy.target import cloudrun_backend_or_none
from cloudrun_jobs.management.exits import ERROR, FAILED
from cloudrun_jobs.management.finding import unknown_job
from cloudrun_jobs.registry import find_jobs


def add_command_option(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--command",
        action="extend",
        nargs="+",
        dest="commands",
        metavar="NAME",
        help="Select only these commands.",
    )


def cloudrun_backend() -> CloudRunBackend:
    """Return the first backend that is Cloud Run. Raises `CommandError` if none is."""
    if (backend := cloudrun_backend_or_none()) is not None:
        return backend
    environment = conf.load().environment
    problem = "has no jobs and no schedules in the cloud"
    hint = "Set CLOUDRUN_JOBS['ENVIRONMENT'], or CLOUDRUN_JOBS_ENVIRONMENT in the environment."
    if environment not in conf.INLINE_ENVIRONMENTS:
        problem = "runs no jobs on Cloud Run"
        hint = "Name the CloudRunBackend in CLOUDRUN_JOBS['BACKEND'] or CLOUDRUN_JOBS['BACKENDS']."
    raise CommandError(f"The environment {environment!r} {problem}. {hint}", returncode=ERROR)


def selected_jobs(commands: Sequence[str] | None, *, unknown: int = FAILED) -> list[CloudRunJobs]:
    """Return the selected jobs, or all. Raises `CommandError` if a command is not a job or cannot be imported.

    `unknown` is the exit status if it is not a job.
    """
    found = find_jobs()
    for name, error in found.unreadable.items():
        if commands is None or name in commands:
            message = f"{name}: cannot be imported, so nothing was changed. {type(error).__name__}: {error}"
            raise CommandError(message, returncode=ERROR) from error
    for name in commands or ():
        if name not in found.jobs:
            raise unknown_job(name, found.jobs, unknown)
    return [job for name, job in found.jobs.items() if commands is None or name in commands]
