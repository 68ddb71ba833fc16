"""Run a job again with the arguments of an earlier run."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from cloudrun_jobs.management.finding import add_run_argument, find_run
from cloudrun_jobs.management.output import write_message

HELP = "Run a job again with the arguments of an earlier run."


def add_arguments(parser: ArgumentParser) -> None:
    add_run_argument(parser)
    parser.add_argument("--failed", action="store_true", help="Repeat only its failed tasks and items.")


def run(command: BaseCommand, **options: Any) -> None:
    operation = find_run(options["id"]).rerun(failed_only=options["failed"])
    command.stdout.write(operation.run_id)
    write_message(command, f"`manage.py cloudrun_jobs show {operation.run_id}` shows the new run.")
