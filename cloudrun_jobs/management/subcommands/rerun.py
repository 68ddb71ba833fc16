"""Run a job again with the arguments of an earlier run."""

from __future__ import annotations

from argparse import ArgumentParser
from functools import partial
from typing import Any

from django.core.management.base import BaseCommand

from cloudrun_jobs.exceptions import RerunRefused
from cloudrun_jobs.management.finding import add_run_argument, find_run
from cloudrun_jobs.management.output import next_command, write_message
from cloudrun_jobs.management.starting import start
from cloudrun_jobs.runs.reruns import WHOLE

HELP = "Run a job again with the arguments of an earlier run."


def add_arguments(parser: ArgumentParser) -> None:
    add_run_argument(parser)
    parser.add_argument("--failed", action="store_true", help="Repeat only its failed tasks and items.")


def run(command: BaseCommand, **options: Any) -> None:
    found = find_run(options["id"])
    try:
        operation = start(found.command, partial(found.rerun, failed_only=options["failed"]))
    except RerunRefused as error:
        if error.hint != WHOLE:
            raise
        raise RerunRefused(
            str(error.args[0]),
            hint=f"{next_command('rerun', found.pk)} repeats the whole run.",
            reason=error.reason,
        ) from None
    command.stdout.write(operation.run_id)
    write_message(command, f"{next_command('show', operation.run_id)} shows the new run.")
