"""List the held locks."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from cloudrun_jobs.exceptions import LockError
from cloudrun_jobs.locks import current, names
from cloudrun_jobs.management.output import add_json_option, next_command, write_rows
from cloudrun_jobs.terminal import Shrink, escape

HELP = "Show the locks that are held, and their holders."
add_arguments = add_json_option


def run(command: BaseCommand, **options: Any) -> None:
    backend = current()
    try:
        holders, warnings = backend.holders(names.prefix()), list(backend.inspect())
    except LockError as error:
        raise CommandError(str(error)) from error
    for warning in warnings:
        command.stderr.write(escape(str(warning), keep="\n\t"))
    write_rows(
        command,
        options,
        data=[asdict(holder) for holder in holders],
        headings=("LOCK", "SLOT", "TOKEN", "HOLDER"),
        rows=[(holder.label, str(holder.slot), str(holder.token), str(holder)) for holder in holders],
        empty="No lock is held.",
        shrink=(Shrink("HOLDER", 30), Shrink("LOCK", 20)),
        next_step=f"{next_command('unlock', 'LOCK')} releases a lock whose holder is gone.",
    )
