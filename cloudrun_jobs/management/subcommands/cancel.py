"""Cancel a run."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from cloudrun_jobs.management.exits import FAILED
from cloudrun_jobs.management.finding import add_run_argument, find_run
from cloudrun_jobs.management.following import state_text
from cloudrun_jobs.management.output import next_command, write_message
from cloudrun_jobs.models import JobRun, Status

HELP = "Cancel a run."


def add_arguments(parser: ArgumentParser) -> None:
    add_run_argument(parser)


def run(command: BaseCommand, **options: Any) -> None:
    found = find_run(options["id"])
    name = str(found.pk)[:8]
    if not found.is_finished:
        found.cancel()
    found.refresh_from_db()
    if found.is_finished and found.status != Status.CANCELLED:
        message = f"Run {name} is not cancelled: {state_text(found, 'it')}."
        raise CommandError(f"{message} {next_command('show', found.pk)} shows it.", returncode=FAILED)
    write_message(command, _message(found, name))


def _message(run: JobRun, name: str) -> str:
    shown = f"{next_command('show', run.pk)} shows it."
    if run.status == Status.CANCELLED:
        return f"Run {name} was cancelled. {shown}"
    return f"Run {name} ends when its tasks detect the cancellation. {shown}"
