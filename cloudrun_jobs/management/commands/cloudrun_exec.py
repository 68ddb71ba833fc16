"""`manage.py cloudrun_exec refresh-token`: run a command whose name is written with hyphens, in this process."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from django.core.management import ManagementUtility, get_commands
from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    help = "Run another command. Hyphens in its name stand for underscores, unless a command has that exact name."

    def run_from_argv(self, argv: Sequence[str]) -> None:
        """Run the command as if it had been named on the command line; its arguments are not parsed here."""
        program, _, *arguments = argv
        if not arguments or arguments[0].startswith("-"):
            super().run_from_argv(list(argv))
            return
        name, *rest = arguments
        sys.argv = [program, name if name in get_commands() else name.replace("-", "_"), *rest]
        ManagementUtility(sys.argv).execute()

    def handle(self, *args: Any, **options: Any) -> None:
        raise CommandError("expected the name of a command and its arguments.", returncode=2)
