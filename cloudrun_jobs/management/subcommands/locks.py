"""Shows who holds which lock."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.core.serializers.json import DjangoJSONEncoder

from cloudrun_jobs.exceptions import LockError
from cloudrun_jobs.locks import Holder, current, names
from cloudrun_jobs.management.subcommands.table import table

HELP = "Show who holds which lock, since when and until when."


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="For machines.")


def run(command: BaseCommand, **options: Any) -> None:
    backend = current()
    try:
        holders, warnings = backend.holders(names.prefix()), list(backend.inspect())
    except LockError as error:
        raise CommandError(str(error)) from error
    for warning in warnings:
        command.stderr.write(str(warning))
    if options["json"]:
        data = [asdict(holder) for holder in holders]
        command.stdout.write(json.dumps(data, cls=DjangoJSONEncoder, ensure_ascii=False))
    elif holders:
        command.stdout.write(table(("LOCK", "SLOT", "TOKEN", "HOLDER"), *map(_row, holders)))
    else:
        command.stderr.write("No lock is held.", str)


def _row(holder: Holder) -> tuple[str, str, str, str]:
    return holder.label, str(holder.slot), str(holder.token), str(holder)
