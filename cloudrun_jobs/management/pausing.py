"""Pause or resume all schedules of a job."""

from __future__ import annotations

from argparse import ArgumentParser

from django.core.management.base import BaseCommand, CommandError

from cloudrun_jobs.deploy import schedules
from cloudrun_jobs.management.exits import ERROR, FAILED, raise_together
from cloudrun_jobs.management.finding import find_job
from cloudrun_jobs.management.output import next_command, write_message
from cloudrun_jobs.management.selection import cloudrun_backend
from cloudrun_jobs.terminal import escape


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("job", help="The command.")


def set_paused(command: BaseCommand, name: str, *, paused: bool) -> None:
    """Pause or resume the Scheduler jobs of the job, and print the state of each. Raises `CommandError`."""
    spec = find_job(name).spec
    if not spec.schedules:
        raise CommandError(f"{name}: the job has no schedule.", returncode=FAILED)
    backend = cloudrun_backend()
    if not schedules.is_deployed(spec, backend):
        message = f"{name}: the backend {spec.backend_alias!r} starts its schedule, not Cloud Scheduler."
        raise CommandError(message, returncode=FAILED)
    from cloudrun_jobs.deploy.cloudrun.pausing import set_states

    errors, state = [], "paused" if paused else "enabled"
    for scheduler_job, is_changed, error in set_states(backend, spec, paused=paused):
        if error is not None:
            errors.append(str(error))
        else:
            command.stdout.write(escape(f"{scheduler_job}: {state if is_changed else f'already {state}'}"))
    raise_together(command, errors, returncode=ERROR)
    resumed = f"{next_command('resume', name)} resumes it."
    write_message(command, resumed if paused else f"{next_command('list')} shows when it is due.")
