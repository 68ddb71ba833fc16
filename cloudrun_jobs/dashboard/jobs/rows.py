"""The declared jobs as the pages show them: schedules, last run, locks, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from django.utils.translation import gettext as _

from cloudrun_jobs import conf, cron
from cloudrun_jobs.dashboard.jobs.schedule_words import schedule_text
from cloudrun_jobs.dashboard.runs.rows import RunRow, run_row
from cloudrun_jobs.dashboard.site import Site
from cloudrun_jobs.deploy.listing import Listing
from cloudrun_jobs.deploy.overview import Difference
from cloudrun_jobs.exceptions import CloudRunJobsError
from cloudrun_jobs.locks import Holder
from cloudrun_jobs.locks.jobs import holders_by_job
from cloudrun_jobs.runs.due import DueSchedule
from cloudrun_jobs.spec import JobSpec, Schedule

if TYPE_CHECKING:
    from cloudrun_jobs.models.querysets import JobRunQuerySet

DUE_TIMES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRow:
    """A schedule, and its state in the cloud; `is_paused` is None if that is unknown."""

    schedule: Schedule
    text: str  #: Empty if only the expression is exact.
    due: DueSchedule
    is_paused: bool | None

    @property
    def next_times(self) -> Iterator[datetime]:
        """The next due times; none of an English-like schedule."""
        time, zone = self.due.next_due, str(self.schedule.time_zone)
        for _number in range(DUE_TIMES):
            if time is None:
                return
            yield time
            time = cron.next_time(self.schedule.cron, zone, time)


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderRow:
    """The holder of a slot of a job's lock, with the page of its run if that is recorded."""

    holder: Holder
    run_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Holders:
    """The holders of a job's locks that a page shows, and the number of those that it does not."""

    rows: Sequence[HolderRow]
    more: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """A command that is a job, or that cannot be imported."""

    command: str
    url: str
    start_url: str = ""  #: Empty if it cannot be started.
    error: str = ""
    schedules: Sequence[ScheduleRow] = ()
    last_run: RunRow | None = None
    holders: Holders | None = None
    changes: Sequence[str] = ()
    problems: Sequence[str] = ()

    @property
    def is_paused(self) -> bool:
        return any(schedule.is_paused for schedule in self.schedules)

    @property
    def overdue_since(self) -> datetime | None:
        return min((row.due.overdue_since for row in self.schedules if row.due.overdue_since), default=None)

    @property
    def has_state(self) -> bool:
        return bool(self.error or self.overdue_since or self.is_paused or self.changes or self.problems)


def job_rows(site: Site, listing: Listing, holders: Mapping[str, Holders], *, may_run: bool) -> list[JobRow]:
    """Return every command of the listing, by name."""
    rows = [_job_row(site, listing, spec, holders.get(spec.command), may_run) for spec in listing.specs]
    rows += (
        JobRow(command=command, url=site.url("job", command), error=error)
        for command, error in declaration_errors(listing).items()
    )
    return sorted(rows, key=lambda row: row.command)


def _job_row(site: Site, listing: Listing, spec: JobSpec, holders: Holders | None, may_run: bool) -> JobRow:
    command, cloud = spec.command, listing.drift
    last = listing.last_runs.get(command)
    return JobRow(
        command=command,
        url=site.url("job", command),
        start_url=site.url("start", command) if may_run else "",
        schedules=schedule_rows(listing, spec),
        last_run=run_row(site, last) if last else None,
        holders=holders,
        changes=change_texts(listing, command),
        problems=cloud.troubles.get(command, ()) if cloud else (),
    )


def declaration_errors(listing: Listing) -> dict[str, str]:
    """Return the errors of the commands that are invalid or cannot be imported, by command."""
    unreadable = {name: f"{type(error).__name__}: {error}" for name, error in listing.unreadable.items()}
    return {**{name: str(error) for name, error in listing.invalid.items()}, **unreadable}


def change_texts(listing: Listing, command: str) -> list[str]:
    """Return the differences between the job and the cloud."""
    return [_change_text(each) for each in listing.drift.changes.get(command, ())] if listing.drift else []


def _change_text(change: Difference) -> str:
    is_job, fields = change.resource == "job", {"fields": ", ".join(change.fields)}
    if not change.fields:
        return _("The Cloud Run job is missing.") if is_job else _("The Scheduler job is missing.")
    differs = _("The Cloud Run job differs: %(fields)s") if is_job else _("The Scheduler job differs: %(fields)s")
    return differs % fields


def schedule_rows(listing: Listing, spec: JobSpec) -> list[ScheduleRow]:
    """Return the schedules of the job."""
    paused = listing.drift.paused if listing.drift else None
    return [
        ScheduleRow(
            schedule=schedule,
            text=schedule_text(schedule.cron),
            due=due,
            is_paused=None if paused is None else due.scheduler_job in paused,
        )
        for schedule, due in zip(spec.schedules, listing.due.get(spec.command, ()), strict=True)
    ]


def holder_rows(
    site: Site, commands: Iterable[str], recorded: JobRunQuerySet, *, limit: int
) -> tuple[dict[str, Holders], str]:
    """Return each job's first holders by command; if the lock server is unavailable, none and its error.

    They are linked to their runs among `recorded`.
    """
    try:
        holders = holders_by_job(commands)
    except CloudRunJobsError as error:
        return {}, str(error)
    shown = {command: each[:limit] for command, each in holders.items()}
    executions = {holder.holder for each in shown.values() for holder in each}
    runs = recorded.filter(execution__in=executions, environment=conf.load().environment)
    urls = {execution: site.url("run", pk) for pk, execution in runs.values_list("pk", "execution")}
    return {
        command: Holders(
            rows=[HolderRow(holder=holder, run_url=urls.get(holder.holder, "")) for holder in each],
            more=len(holders[command]) - len(each),
        )
        for command, each in shown.items()
    }, ""
