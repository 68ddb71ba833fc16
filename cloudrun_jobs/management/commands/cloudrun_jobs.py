"""`manage.py cloudrun_jobs <subcommand>`: inspect and maintain runs, locks and schedules."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error

from cloudrun_jobs.exceptions import CloudRunJobsError
from cloudrun_jobs.management.output import escaped_errors
from cloudrun_jobs.management.subcommands import SUBCOMMANDS
from cloudrun_jobs.runs import database


class Command(BaseCommand):
    help = "Inspect and maintain runs, locks and reservations."

    def add_arguments(self, parser: CommandParser) -> None:
        subparsers = parser.add_subparsers(title="subcommands", required=True, metavar="subcommand")
        for name, subcommand in SUBCOMMANDS.items():
            subparser = subparsers.add_parser(name, help=subcommand.HELP, description=subcommand.HELP)
            subcommand.add_arguments(subparser)
            subparser.set_defaults(subcommand=subcommand)

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        # argparse cannot separate the arguments of `run` from those of the job, which follow `--`.
        vars(parser)["parse_args"] = partial(_parse_args, parser, parser.parse_args)
        return parser

    @escaped_errors()
    def handle(self, *args: Any, **options: Any) -> None:
        try:
            database.with_migration_hint(partial(options["subcommand"].run, self, **options))
        except CloudRunJobsError as error:
            raise CommandError(str(error)) from error
        except Error as error:
            raise CommandError(f"The database {database.database_alias()!r} failed: {error}") from error


def _parse_args(
    parser: CommandParser, parse: Callable[..., Namespace], args: Sequence[str], namespace: Any = None
) -> Namespace:
    """Parse the arguments before `--`; the arguments after it belong to the job."""
    own = args[: args.index("--")] if "--" in args else args
    options = parse(own, namespace)
    options.job_arguments = args[len(own) + 1 :]
    if options.job_arguments and not getattr(options, "takes_job_arguments", False):
        parser.error("expected no arguments after --: only the subcommand `run` takes them")
    return options
