"""Shows who holds which lock."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ...exceptions import LockError
from ...locks import Holder, current, keys

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
        command.stdout.write(_table(holders) if holders else "No lock is held.")


def _table(holders: Sequence[Holder]) -> str:
    rows = [("LOCK", "SLOT", "TOKEN", "HOLDER"), *(_row(holder) for holder in holders)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3])) for row in rows
    )


def _row(holder: Holder) -> tuple[str, str, str, str]:
    return holder.label, str(holder.slot), str(holder.token), str(holder)
