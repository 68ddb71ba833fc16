"""Release a lock whose holder is gone."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from cloudrun_jobs.exceptions import LockError
from cloudrun_jobs.locks import Holder, current, names
from cloudrun_jobs.locks.jobs import release
from cloudrun_jobs.management.output import write_message
from cloudrun_jobs.registry import find_jobs
from cloudrun_jobs.suggestions import closest
from cloudrun_jobs.terminal import escape

LOCKS = "`manage.py cloudrun_jobs locks`"
HELP = "Release a lock whose holder is gone."


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", help="The lock's name or key, as `locks` shows it.")
    parser.add_argument("--force", action="store_true", help="Release it although its lease has not expired.")


def run(command: BaseCommand, **options: Any) -> None:
    try:
        message = _unlock(options["name"], force=options["force"])
    except LockError as error:
        raise CommandError(str(error)) from error
    command.stdout.write(escape(message))
    write_message(command, f"{LOCKS} lists the locks that are held.")


def _unlock(name: str, *, force: bool) -> str:
    all_holders = current().holders(names.prefix())
    holders = [holder for holder in all_holders if name in {holder.label, holder.lock}]
    if not holders:
        _reject_unknown(name, all_holders)
        return f"{name}: not held."
    if not force:
        held_by = "; ".join(map(str, holders))
        raise CommandError(f"{name} is held by {held_by}. Add --force if the holder is gone.")
    released = [release(holder.lock, holder.slot, holder.token) for holder in holders]
    if not all(released):
        raise CommandError(f"A holder of {name} has released it, or has changed. {LOCKS} lists the holders.")
    return f"{name}: released."


def _reject_unknown(name: str, holders: Sequence[Holder]) -> None:
    """Raise `CommandError` if no lock has this name, so a misspelt name does not seem to be free."""
    backend = current()
    if any(backend.exists(key) for key in (name, names.lock_name(name).key)):
        return
    if name.partition("#")[0] not in find_jobs().jobs:
        hint = closest(name, {holder.label for holder in holders})
        raise CommandError(f"There is no lock {name!r}. {hint or f'{LOCKS} lists the locks that are held.'}")
