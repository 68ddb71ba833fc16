"""`manage.py cloudrun_jobs <subcommand>`: run and inspect jobs, and maintain runs, locks and schedules."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from cloudrun_jobs.management.exits import errors_reported_once, exits
from cloudrun_jobs.management.parsing import Parser, add_django_options
from cloudrun_jobs.management.streams import writable_output
from cloudrun_jobs.runs import database


class Command(BaseCommand):
    help = "Run and inspect jobs, and maintain runs, locks and reservations."

    def add_arguments(self, parser: CommandParser) -> None:
        # The system checks of every command import this module, and need none of the subcommands.
        from cloudrun_jobs.management.subcommands import SUBCOMMANDS

        parser.__class__ = Parser  # Django creates it.
        subparsers = parser.add_subparsers(title="subcommands", required=True, metavar="subcommand")
        for name, subcommand in SUBCOMMANDS.items():
            subparser = subparsers.add_parser(
                name, help=subcommand.HELP, description=subcommand.HELP, allow_abbrev=False
            )
            subcommand.add_arguments(subparser)
            add_django_options(subparser)
            subparser.set_defaults(subcommand=subcommand, subparser=subparser)

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run without the system checks, because most subcommands are for diagnosis."""
        return super().execute(*args, **{**options, "skip_checks": True})

    def handle(self, *args: Any, **options: Any) -> None:
        with exits(), errors_reported_once(), writable_output(self):
            database.with_migration_hint(partial(options["subcommand"].run, self, **options))
