"""`manage.py cloudrun_jobs <verb>`: look at what the app keeps, and mend it."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from ..verbs import VERBS


class Command(BaseCommand):
    help = "Look at what cloudrun_jobs keeps, and mend it."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(title="verbs", required=True, metavar="verb")
        for name, verb in VERBS.items():
            subparser = verbs.add_parser(name, help=verb.HELP, description=verb.HELP)
            verb.add_arguments(subparser)
            subparser.set_defaults(verb=verb)

    def handle(self, *args: Any, **options: Any) -> None:
        options["verb"].run(self, **options)
