"""List the declared jobs with their schedules, their last runs and the drift."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from cloudrun_jobs.deploy.listing import Listing
from cloudrun_jobs.deploy.overview import Overview
from cloudrun_jobs.management.exits import FAILED
from cloudrun_jobs.management.listing import paused_of, raise_errors, read, schedule_text, state_of
from cloudrun_jobs.management.output import add_json_option, next_command, write_json, write_message, write_rows
from cloudrun_jobs.spec import JobSpec
from cloudrun_jobs.terminal import Shrink, format_minute

HELP = "List the declared jobs: schedule, next and last run, and what differs in the cloud."
SYNC_HINT = "`manage.py sync_cloudrun_jobs` and `sync_cloudrun_schedules` end the drift; --dry-run shows it."
IMPORT_HINT = (
    "No sync changes anything until every command can be imported, unless --command selects those that can."
)
# First what is too long, then what can be missed: a cut LAST RUN keeps the status.
SHRINK = (
    Shrink("JOB", 24),
    Shrink("SCHEDULE", 20),
    Shrink("STATE", 18),
    Shrink("LAST RUN", 10),
    Shrink("SCHEDULE", 12),
    Shrink("JOB", 14),
)


def add_arguments(parser: ArgumentParser) -> None:
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--offline", action="store_true", help="Call no Google API: show no drift and no pauses.")
    mode.add_argument("--check", action="store_true", help="Exit with status 1 if there is drift.")
    add_json_option(parser)


def run(command: BaseCommand, **options: Any) -> None:
    listing = read(offline=options["offline"], check=options["check"])
    if options["json"]:
        write_json(command, listing.data)
    else:
        _write(command, listing, options)
    raise_errors(command, listing)
    if options["check"] and listing.drift is not None and listing.drift.exists:
        raise CommandError(f"{_drift_count(listing.drift)}. {SYNC_HINT}", returncode=FAILED)
    if not options["json"]:
        write_message(command, _next_step(listing))


def _write(command: BaseCommand, listing: Listing, options: dict[str, Any]) -> None:
    write_rows(
        command,
        options,
        data=None,
        headings=("JOB", "SCHEDULE", "NEXT", "LAST RUN", "STATE"),
        rows=[_row(listing, spec) for spec in listing.specs],
        empty="No job is declared.",
        shrink=SHRINK,
    )
    for name, error in listing.unreadable.items():
        write_message(command, f"{name}: cannot be imported. {type(error).__name__}: {error}")
    if listing.drift and listing.drift.orphans:
        message = (
            f"No command declares {', '.join(listing.drift.orphans)}. The sync commands delete them with --prune."
        )
        write_message(command, message)


def _row(listing: Listing, spec: JobSpec) -> tuple[str, ...]:
    paused, last = paused_of(listing, spec), listing.last_runs.get(spec.command)
    first, *others = [schedule_text(schedule) for schedule in spec.schedules] or ["-"]
    more = f"(+{len(others)}) " if others else ""  # In front, where a narrow terminal keeps it.
    ran = f"{last.status} {format_minute(last.created_at)}" if last else "-"
    due, state = format_minute(_next(listing, spec, paused)), state_of(listing, spec, paused)
    return spec.command, more + first, due, ran, state


def _next(listing: Listing, spec: JobSpec, paused: Sequence[str]) -> datetime | None:
    times = [
        due.next_due
        for due in listing.due.get(spec.command, ())
        if due.next_due and due.scheduler_job not in paused
    ]
    return min(times, default=None)


def _drift_count(found: Overview) -> str:
    count = sum(map(len, found.changes.values())) + len(found.orphans)
    return f"{count} {'difference' if count == 1 else 'differences'} between the code and the cloud"


def _next_step(listing: Listing) -> str:
    zone = f"Times are in {settings.TIME_ZONE}. " if listing.specs else ""
    if listing.drift is not None and listing.drift.exists:
        first = IMPORT_HINT if listing.unreadable else SYNC_HINT
        return f"{zone}{_drift_count(listing.drift)}. {first}"
    return f"{zone}{next_command('show', 'JOB')} shows one job."
