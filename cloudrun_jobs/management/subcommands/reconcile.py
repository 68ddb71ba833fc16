"""Reconcile the records of runs with their executions."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from cloudrun_jobs.management.output import next_command, write_message
from cloudrun_jobs.runs.reconcile import DENIED, reconcile_all, undispatched
from cloudrun_jobs.terminal import format_time

HELP = "Dispatch pending runs and finish runs whose execution ended without reporting."


def add_arguments(parser: ArgumentParser) -> None:
    """Take no arguments."""


def run(command: BaseCommand, **options: Any) -> None:
    done = reconcile_all()
    counts = ", ".join(f"{count} {what}" for what, count in sorted(done.items()))
    command.stdout.write(f"{counts}." if counts else "Nothing to do.")
    waiting, until = undispatched()
    if waiting:
        # Until their dispatch lease ends, a slow dispatcher cannot be distinguished from a dead one.
        message = f"{waiting} still being dispatched, until {format_time(until)}. Run this again afterwards."
        write_message(command, message)
    else:
        write_message(command, f"{next_command('runs', '', '--running')} lists the unfinished runs.")
    if done[DENIED]:
        raise CommandError("Some runs could not be reconciled: a permission is missing. See the log.")
