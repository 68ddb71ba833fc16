"""Generate a token for the HTTP API."""

from __future__ import annotations

import secrets
from argparse import ArgumentParser
from hashlib import sha256
from typing import Any

from django.core.management.base import BaseCommand

from cloudrun_jobs.management.output import write_message

HELP = "Generate a token for the HTTP API, and print its entry for the settings."


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", default="NAME", help="The name of the token, for logs and records.")


def run(command: BaseCommand, **options: Any) -> None:
    token = secrets.token_urlsafe(32)
    command.stdout.write(token)
    entry = {"name": options["name"], "sha256": sha256(token.encode()).hexdigest(), "scopes": ["read", "run"]}
    write_message(command, f"Keep the token secret. Its entry for CLOUDRUN_JOBS['HTTP']['TOKENS']: {entry}")
