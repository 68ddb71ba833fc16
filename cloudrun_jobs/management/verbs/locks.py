"""Shows who holds which lock."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ...exceptions import LockError
from ...locks import Holder, current, keys
from .table import table

HELP = "Show who holds which lock, since when and until when."


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="For machines.")


def run(command: BaseCommand, **options: Any) -> None:
    backend = current()
    try:
        holders, warnings = backend.holders(keys.prefix()), list(backend.inspect())
    except LockError as error:
        raise CommandError(str(error)) from error
    for warning in warnings:
        command.stderr.write(str(warning))
    if options["json"]:
        command.stdout.write(json.dumps([asdict(holder) for holder in holders], default=str, ensure_ascii=False))
    else:
        rows = [("LOCK", "SLOT", "TOKEN", "HOLDER"), *map(_row, holders)]
        command.stdout.write(table(*rows) if holders else "No lock is held.")


def _row(holder: Holder) -> tuple[str, str, str, str]:
    return holder.label, str(holder.slot), str(holder.token), str(holder)
