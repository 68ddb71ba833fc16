"""Which cloud, and which of the jobs: for the commands that write them down."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence

from django.core.management.base import CommandError

from cloudrun_jobs import backends, conf
from cloudrun_jobs.backends.cloudrun import CloudRunBackend
from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.registry import find_jobs
from cloudrun_jobs.suggestions import did_you_mean

ERROR = 2


def add_commands(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--command",
        action="extend",
        nargs="+",
        dest="commands",
        metavar="NAME",
        help="Look at these commands alone.",
    )


def cloudrun_backend() -> CloudRunBackend:
    """Return the backend that is Cloud Run."""
    backend = backends.current()
    if isinstance(backend, CloudRunBackend):
        return backend
    environment = conf.load().environment
    raise CommandError(
        f"The environment is {environment!r}: it has no jobs and no schedules in the cloud. Set"
        " CLOUDRUN_JOBS['ENVIRONMENT'], or CLOUDRUN_JOBS_ENVIRONMENT in the environment.",
        returncode=ERROR,
    )


def selected_jobs(commands: Sequence[str] | None) -> list[CloudRunJobs]:
    """Return the jobs, or those asked for; a command that may be one of them and cannot be read stops all."""
    found = find_jobs()
    for name, error in found.unreadable.items():
        if commands is None or name in commands:
            words = f"{name}: cannot be imported, so nothing was changed. {type(error).__name__}: {error}"
            raise CommandError(words, returncode=ERROR) from error
    for name in commands or ():
        if name not in found.jobs:
            hint = did_you_mean(name, found.jobs)
            raise CommandError(f"{name!r} is not a Cloud Run job. {hint}", returncode=ERROR)
    return [job for name, job in found.jobs.items() if commands is None or name in commands]
