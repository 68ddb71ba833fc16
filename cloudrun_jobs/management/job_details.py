"""Show one job: its declaration, schedules, last runs, locks and drift."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand

from cloudrun_jobs.conf import DEFAULT_ALIAS
from cloudrun_jobs.deploy.listing import Listing
from cloudrun_jobs.deploy.target import console_url
from cloudrun_jobs.exceptions import LockError
from cloudrun_jobs.locks import Holder
from cloudrun_jobs.locks.jobs import holders_by_job
from cloudrun_jobs.management.finding import find_job
from cloudrun_jobs.management.listing import raise_errors, read
from cloudrun_jobs.management.output import next_command, write_json, write_message
from cloudrun_jobs.management.subcommands.runs import SHRINK, row_of
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.runs.data import LISTED, listed_data
from cloudrun_jobs.spec import JobSpec
from cloudrun_jobs.terminal import Shrink, format_time, table, width_of

LAST_RUNS = 5
HEADINGS = ("RUN", "STATUS", "CREATED", "TOOK", "REQUESTED BY")


def show(command: BaseCommand, name: str, *, as_json: bool, offline: bool) -> None:
    """Print the job. Raises `CommandError` afterwards if a Google API failed."""
    job = find_job(name)
    spec, listing = job.spec, read(offline=offline, only=name)
    own = JobRun.objects.for_command(name).filter(environment=spec.environment)
    runs = list(own.newest_first().only(*LISTED)[:LAST_RUNS])
    holders, lock_error = _holders(name)
    if as_json:
        write_json(command, {**_data(spec, listing, job.help), **_state(runs, holders, lock_error)})
    else:
        rows = ((label, value) for label, value in _rows(spec, listing, job.help, holders) if value)
        command.stdout.write(table(*rows))
        if runs:
            command.stdout.write("\n" + _runs_table(command, runs))
        if lock_error:
            write_message(command, lock_error)
    raise_errors(command, listing)
    if not as_json:
        write_message(command, f"{next_command('run', name)} starts it.")


def _holders(name: str) -> tuple[list[Holder], str]:
    """Return the holders of the job's locks, and the error if the lock server is unavailable."""
    try:
        return [*holders_by_job([name]).get(name, ())], ""
    except LockError as error:
        return [], str(error)


def _data(spec: JobSpec, listing: Listing, help_text: str) -> dict[str, Any]:
    return {
        **listing.job_data(spec),
        "help": help_text,
        "tasks": spec.tasks,
        "timeout": spec.timeout.total_seconds(),
        "max_retries": spec.max_retries,
        "parallelism": spec.parallelism,
        "target": spec.target,
        "image": spec.image,
        "console_url": console_url(spec),
        "errors": listing.error_texts,
    }


def _state(runs: Sequence[JobRun], holders: Sequence[Holder], lock_error: str) -> dict[str, Any]:
    locks = None if lock_error else [asdict(holder) for holder in holders]
    return {"runs": [listed_data(run) for run in runs], "locks": locks}


def _rows(spec: JobSpec, listing: Listing, help_text: str, holders: Sequence[Holder]) -> Iterator[tuple[str, str]]:
    cloud = listing.drift
    yield "Job", spec.command
    yield "Help", help_text
    yield "Cloud Run Job", spec.name
    yield "Backend", spec.backend_alias or DEFAULT_ALIAS
    yield "Runs in", "the web service" if spec.target == "service" else ""
    yield "Image", spec.image or ""
    yield "Command line", shlex.join([*spec.entrypoint, spec.command])
    yield "Tasks", str(spec.tasks)
    yield "Timeout", f"{spec.timeout} per attempt, {spec.max_retries} retries"
    yield "Parallelism", "unlimited" if spec.parallelism is None else str(spec.parallelism)
    yield from _schedules(spec, listing)
    yield from _labelled("Lock held by", [f"{holder.label}: {holder}" for holder in holders])
    if cloud is not None:
        changes = [*map(str, cloud.changes.get(spec.command, ()))]
        yield from _labelled("Cloud", changes or ([] if cloud.errors else ["in sync"]))
        yield from _labelled("Problem", [*cloud.troubles.get(spec.command, ())])
    yield "Console", console_url(spec)


def _schedules(spec: JobSpec, listing: Listing) -> Iterator[tuple[str, str]]:
    paused, texts = (listing.drift.paused if listing.drift else frozenset()), []
    for schedule, due in zip(spec.schedules, listing.due.get(spec.command, ()), strict=True):
        state = "paused" if due.scheduler_job in paused else f"next {format_time(due.next_due)}"
        overdue = f"overdue since {format_time(due.overdue_since)}" if due.overdue_since else ""
        name = f"[{schedule.name}]" if schedule.name else ""
        texts.append("  ".join(filter(None, (name, schedule.cron, str(schedule.time_zone), state, overdue))))
    return _labelled("Schedule", texts)


def _labelled(label: str, texts: Sequence[str]) -> Iterator[tuple[str, str]]:
    yield from ((label if number == 0 else " ", text) for number, text in enumerate(texts))


def _runs_table(command: BaseCommand, runs: Sequence[JobRun]) -> str:
    headings, *rows = zip(*_columns(runs), strict=True)
    shrink: list[Shrink] = [each for each in SHRINK if each.heading in HEADINGS]
    return table(headings, *rows, columns=width_of(command.stdout), shrink=shrink)


def _columns(runs: Sequence[JobRun]) -> Iterator[tuple[str, ...]]:
    cells = [dict(row_of(run)) for run in runs]
    return ((heading, *(row[heading] for row in cells)) for heading in HEADINGS)
