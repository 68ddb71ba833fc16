"""Frees a lock whose holder is known to be gone."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ...exceptions import LockError
from ...locks import current, keys

HELP = "Free a lock whose holder is known to be gone."


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", help="The lock's name or key, as `locks` shows it.")
    parser.add_argument("--force", action="store_true", help="Even though its lease has not ended.")


def run(command: BaseCommand, **options: Any) -> None:
    name, backend = options["name"], current()
    try:
        held = [holder for holder in backend.holders(keys.prefix()) if name in {holder.label, holder.lock}]
        if not held:
            command.stdout.write(f"{name}: nobody holds it.")
            return
        if not options["force"]:
            who = "; ".join(map(str, held))
            raise CommandError(f"{name} is held by {who}. If that is dead, add --force.")
        for lock in {holder.lock for holder in held}:
            backend.free(lock)
    except LockError as error:
        raise CommandError(str(error)) from error
    command.stdout.write(f"{name}: freed.")
