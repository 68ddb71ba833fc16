"""A run's record as JSON-compatible data, for `--json` and the HTTP API."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from cloudrun_jobs.models import JobRun, Stats

TIMES = ("created_at", "started_at", "finished_at")
#: The fields of a run in a list.
LISTED = ("id", "command", "status", "reason", "trigger", "requested_by", *TIMES, "execution")

#: The fields of a run that its data leaves out unless they are requested.
HIDDEN = ("traceback",)


def listed_data(run: JobRun) -> dict[str, Any]:
    """Return what a list shows of the run."""
    return {field: getattr(run, field) for field in LISTED}


def stats_data(stats: Stats) -> dict[str, Any]:
    """Return the statistics of a job; durations are seconds."""
    return {**stats._asdict(), "p50": _seconds(stats.p50), "p95": _seconds(stats.p95)}


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()


def run_data(run: JobRun, *, traceback: bool = False) -> dict[str, Any]:
    """Return every field of the run, and its progress; the traceback only on request."""
    data = {field.attname: getattr(run, field.attname) for field in JobRun._meta.concrete_fields}
    if not traceback:
        data = {name: value for name, value in data.items() if name not in HIDDEN}
    progress = run.progress
    return {**data, "progress": progress and progress._asdict()}
