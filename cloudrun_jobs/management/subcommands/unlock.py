"""Frees a lock whose holder is known to be gone."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from cloudrun_jobs.exceptions import LockError
from cloudrun_jobs.locks import Holder, current, names
from cloudrun_jobs.registry import find_jobs
from cloudrun_jobs.suggestions import closest

HELP = "Free a lock whose holder is known to be gone."


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", help="The lock's name or key, as `locks` shows it.")
    parser.add_argument("--force", action="store_true", help="Even though its lease has not ended.")


def run(command: BaseCommand, **options: Any) -> None:
    try:
        words = _unlock(options["name"], force=options["force"])
    except LockError as error:
        raise CommandError(str(error)) from error
    command.stdout.write(words)


def _unlock(name: str, *, force: bool) -> str:
    holders = current().holders(names.prefix())
    held = [holder for holder in holders if name in {holder.label, holder.lock}]
    if not held:
        _refuse_unknown(name, holders)
        return f"{name}: nobody holds it."
    if not force:
        who = "; ".join(map(str, held))
        raise CommandError(f"{name} is held by {who}. If that is dead, add --force.")
    for lock in {holder.lock for holder in held}:
        current().force_release(lock)
    return f"{name}: freed."


def _refuse_unknown(name: str, holders: Sequence[Holder]) -> None:
    """Refuse what is no lock, so that a misspelt name is not taken for one that is free."""
    backend = current()
    if any(backend.exists(key) for key in (name, names.lock_name(name).key)):
        return
    if name.partition("#")[0] not in find_jobs().jobs:
        hint = closest(name, {holder.label for holder in holders})
        which = "`manage.py cloudrun_jobs locks` shows which are held."
        raise CommandError(f"There is no lock {name!r}. {hint or which}")
