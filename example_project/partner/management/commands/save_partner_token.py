"""Save the first token of the partner's API: `manage.py save_partner_token` prompts for it."""

from __future__ import annotations

import sys
from getpass import getpass
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from cloudrun_jobs import secrets
from cloudrun_jobs.exceptions import SecretConflict, SecretError
from partner import SECRET, api


class Command(BaseCommand):
    help = "Save the first token of the partner's API, read from the terminal or stdin"

    def add_arguments(self, parser: CommandParser) -> None:
        # No option for the token: arguments are visible in the process list and the shell's history.
        parser.add_argument("--replace", action="store_true", help="replace the saved token")

    def handle(self, *args: Any, replace: bool, **options: Any) -> None:
        token = (getpass("Token: ") if sys.stdin.isatty() else sys.stdin.read()).strip()
        if not api.is_token(token):
            raise CommandError("Expected a token on stdin: six or more visible ASCII characters, without spaces.")
        try:
            version = secrets.update(SECRET, token, expected=None if replace else 0, create=True)
        except SecretConflict as error:
            raise CommandError(f"{SECRET} already has a token. Pass --replace to replace it.") from error
        except SecretError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(self.style.SUCCESS(f"{SECRET} has version {version}."))
