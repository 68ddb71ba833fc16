"""`manage.py cloudrun_jobs <verb>`: look at what the app keeps, and mend it."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import InterfaceError, OperationalError

from cloudrun_jobs.exceptions import CloudRunJobsError
from cloudrun_jobs.management.subcommands import VERBS
from cloudrun_jobs.runs import database


class Command(BaseCommand):
    help = "Look at what cloudrun_jobs keeps, and mend it."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(title="verbs", required=True, metavar="verb")
        for name, verb in VERBS.items():
            subparser = verbs.add_parser(name, help=verb.HELP, description=verb.HELP)
            verb.add_arguments(subparser)
            subparser.set_defaults(verb=verb)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            database.with_migration_hint(partial(options["verb"].run, self, **options))
        except CloudRunJobsError as error:
            raise CommandError(str(error)) from error
        except (OperationalError, InterfaceError) as error:
            raise CommandError(
                f"The database {database.database_alias()!r} did not do as asked: {error}"
            ) from error
