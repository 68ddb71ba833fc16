"""How a run is told of to people."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.utils import timezone

from cloudrun_jobs.models import JobRun


def moment(when: datetime | None) -> str:
    """Return a time in the project's time zone."""
    if when is None:
        return "-"
    return f"{timezone.localtime(when):%F %T %Z}" if timezone.is_aware(when) else f"{when:%F %T}"


def took(run: JobRun) -> str:
    """Return how long a run was at work, if it has ended."""
    if run.started_at is None or run.finished_at is None:
        return "-"
    return str(timedelta(seconds=round((run.finished_at - run.started_at).total_seconds())))


def status(run: JobRun) -> str:
    """Return a run's status, with the reason where that says more."""
    return f"{run.status} ({run.reason})" if run.reason not in {"", run.status} else run.status
