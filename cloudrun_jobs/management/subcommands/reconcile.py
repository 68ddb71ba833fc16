"""Brings the records of the runs in line with what is the case."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from cloudrun_jobs.backends import current
from cloudrun_jobs.management.subcommands.words import moment
from cloudrun_jobs.runs.reconcile import DENIED, reconcile, undispatched

HELP = "Send the runs that were not sent, and end those whose execution has ended without a word."


def add_arguments(parser: ArgumentParser) -> None:
    """Take no arguments."""


def run(command: BaseCommand, **options: Any) -> None:
    done = reconcile(current())
    counts = ", ".join(f"{count} {what}" for what, count in sorted(done.items()))
    command.stdout.write(f"{counts}." if counts else "Nothing to do.")
    waiting, until = undispatched()
    if waiting:
        # Before that nobody can tell a sender that is slow from one that is dead.
        words = f"{waiting} not sent yet, left to the sender until {moment(until)}. Then run this again."
        command.stderr.write(words, str)
    if done[DENIED]:
        raise CommandError("Some runs could not be looked after for want of a permission: see the log.")
