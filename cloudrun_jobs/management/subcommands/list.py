"""List the declared jobs with their schedules, their last runs and the drift."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.conf import DEFAULT_ALIAS
from cloudrun_jobs.deploy import overview
from cloudrun_jobs.deploy.overview import Overview
from cloudrun_jobs.exceptions import CloudRunJobsError, InvalidJob
from cloudrun_jobs.management.exits import ERROR, FAILED, status_of
from cloudrun_jobs.management.output import add_json_option, write_json, write_message, write_rows
from cloudrun_jobs.management.selection import cloudrun_backend, cloudrun_backend_or_none
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.registry import find_jobs
from cloudrun_jobs.runs.data import LISTED, listed_data
from cloudrun_jobs.runs.due import DueSchedule, due_schedules
from cloudrun_jobs.spec import JobSpec, Schedule
from cloudrun_jobs.terminal import Shrink, format_minute

HELP = "List the declared jobs: schedule, next and last run, and what differs in the cloud."
# A cut LAST RUN keeps the status.
SHRINK = (Shrink("SCHEDULE", 12), Shrink("STATE", 18), Shrink("LAST RUN", 10), Shrink("JOB", 14))


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
    errors = [str(error) for error in (*listing.invalid.values(), *listing.drift_errors)]
    if errors:
        statuses = {status_of(error) for error in listing.drift_errors} or {ERROR}
        raise CommandError(" ".join(dict.fromkeys(errors)), returncode=max(statuses))
    if options["check"] and listing.drift is not None and listing.drift.exists:
        raise CommandError(f"{_drift_count(listing.drift)}. {SYNC_HINT}", returncode=FAILED)
    if not options["json"]:
        write_message(command, _next_step(listing))


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The declared jobs, with what their records and the cloud say."""

    specs: Sequence[JobSpec]
    due: Mapping[str, Sequence[DueSchedule]]
    last_runs: Mapping[str, JobRun]
    drift: Overview | None  # None without a cloud.
    invalid: Mapping[str, InvalidJob] = field(default_factory=dict)
    unreadable: Mapping[str, BaseException] = field(default_factory=dict)

    @property
    def drift_errors(self) -> Sequence[CloudRunJobsError]:
        return self.drift.errors if self.drift else ()

    @property
    def data(self) -> dict[str, Any]:
        return {
            "jobs": [self.job_data(spec) for spec in self.specs],
            "orphans": list(self.drift.orphans) if self.drift else None,
            "errors": [str(error) for error in (*self.invalid.values(), *self.drift_errors)],
            "unreadable": {name: f"{type(error).__name__}: {error}" for name, error in self.unreadable.items()},
        }

    def job_data(self, spec: JobSpec) -> dict[str, Any]:
        last, cloud, name = self.last_runs.get(spec.command), self.drift, spec.command
        schedules = zip(spec.schedules, self.due.get(name, ()), strict=True)
        return {
            "command": name,
            "job": spec.name,
            "backend": spec.backend_alias or DEFAULT_ALIAS,
            "schedules": [self._schedule_data(*each) for each in schedules],
            "last_run": last and listed_data(last),
            "drift": None if cloud is None else list(cloud.changes.get(name, ())),
            "troubles": None if cloud is None else list(cloud.troubles.get(name, ())),
        }

    def _schedule_data(self, schedule: Schedule, due: DueSchedule) -> dict[str, Any]:
        return {
            "name": schedule.name,
            "cron": schedule.cron,
            "time_zone": str(schedule.time_zone),
            "scheduler_job": due.scheduler_job,
            "next_due": due.next_due,
            "overdue_since": due.overdue_since,
            "paused": None if self.drift is None else due.scheduler_job in self.drift.paused,
        }


def read(*, offline: bool = False, check: bool = False, only: str | None = None) -> Listing:
    """Return all declared jobs, or one. Raises `CloudRunJobsError` for invalid settings."""
    found, invalid = find_jobs(), dict[str, InvalidJob]()
    jobs = dict[str, CloudRunJobs]()
    for name, job in found.jobs.items():
        try:
            _ = job.spec
        except InvalidJob as error:
            invalid[name] = error
        else:
            jobs |= {name: job} if only in {None, name} else {}
    specs = [job.spec for job in jobs.values()]
    due: dict[str, list[DueSchedule]] = {}
    for each in due_schedules(specs):
        due.setdefault(each.command, []).append(each)
    return Listing(
        specs=specs,
        due=due,
        last_runs=JobRun.objects.last_runs([*jobs], LISTED),
        drift=_drift([*jobs.values()], {*invalid, *found.unreadable}, offline=offline, check=check, only=only),
        invalid=invalid if only is None else {},
        unreadable=found.unreadable if only is None else {},
    )


def _drift(
    jobs: Sequence[CloudRunJobs], undeclared: set[str], *, offline: bool, check: bool, only: str | None
) -> Overview | None:
    backend = cloudrun_backend() if check else cloudrun_backend_or_none()
    if offline or backend is None:
        return None
    return overview.read(jobs, backend, undeclared=undeclared, orphans=only is None)


def state_of(listing: Listing, spec: JobSpec, now_paused: Sequence[str]) -> str:
    """Return what is unusual about the job, in a few words."""
    found, cloud = [], listing.drift
    if overdue := [due.overdue_since for due in listing.due.get(spec.command, ()) if due.overdue_since]:
        found.append(f"overdue since {format_minute(min(overdue))}")
    if now_paused:
        found.append("paused" if len(now_paused) == len(spec.schedules) else f"{len(now_paused)} paused")
    if cloud is not None:
        found += [*cloud.changes.get(spec.command, ()), *cloud.troubles.get(spec.command, ())]
    return "; ".join(found)


def paused_of(listing: Listing, spec: JobSpec) -> list[str]:
    """Return the job's Scheduler jobs that are paused."""
    paused = listing.drift.paused if listing.drift else frozenset()
    return [due.scheduler_job for due in listing.due.get(spec.command, ()) if due.scheduler_job in paused]


def schedule_text(schedule: Schedule) -> str:
    """Return the expression, with its time zone unless it is that of the project."""
    zone = str(schedule.time_zone)
    return schedule.cron if zone == settings.TIME_ZONE else f"{schedule.cron} {zone}"


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
    more = f" (+{len(others)})" if others else ""
    ran = f"{last.status} {format_minute(last.created_at)}" if last else "-"
    due, state = format_minute(_next(listing, spec, paused)), state_of(listing, spec, paused)
    return spec.command, first + more, due, ran, state


def _next(listing: Listing, spec: JobSpec, paused: Sequence[str]) -> datetime | None:
    times = [
        due.next_due
        for due in listing.due.get(spec.command, ())
        if due.next_due and due.scheduler_job not in paused
    ]
    return min(times, default=None)


SYNC_HINT = "`manage.py sync_cloudrun_jobs` and `sync_cloudrun_schedules` apply it; with --dry-run they show it."


def _drift_count(found: Overview) -> str:
    count = len(found.changes) + len(found.orphans)
    return f"{count} {'difference' if count == 1 else 'differences'} between the code and the cloud"


def _next_step(listing: Listing) -> str:
    zone = f"Times are in {settings.TIME_ZONE}. " if listing.specs else ""
    if listing.drift is not None and listing.drift.exists:
        return f"{zone}{_drift_count(listing.drift)}. {SYNC_HINT}"
    return f"{zone}`manage.py cloudrun_jobs show JOB` shows one job."
