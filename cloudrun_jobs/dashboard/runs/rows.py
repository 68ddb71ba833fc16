"""A run in a list: its page and its duration."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from cloudrun_jobs.dashboard.site import Site
from cloudrun_jobs.models import JobRun


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run with its page, and its duration until now if it has not ended; None if it has not started."""

    run: JobRun
    url: str
    took: timedelta | None


def run_row(site: Site, run: JobRun) -> RunRow:
    """Return the run with its page."""
    return RunRow(run=run, url=site.url("run", run.pk), took=took(run))


def took(run: JobRun, now: datetime | None = None) -> timedelta | None:
    """Return the duration of a run, until now if it has not ended; None if it has not started."""
    if run.started_at is None:
        return None
    end = run.finished_at or (None if run.is_finished else now or timezone.now())
    return None if end is None else max(end - run.started_at, timedelta(0))
