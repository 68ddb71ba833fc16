"""A run's record as JSON-compatible data, for `--json` and the HTTP API."""

from __future__ import annotations

from typing import Any

from cloudrun_jobs.models import JobRun

TIMES = ("created_at", "started_at", "finished_at")
#: The fields of a run in a list.
LISTED = ("id", "command", "status", "reason", "trigger", "requested_by", *TIMES, "execution")

#: The fields that are never shown.
HIDDEN = frozenset({"secret_argv"})


def listed_data(run: JobRun) -> dict[str, Any]:
    """Return what a list shows of the run."""
    return {field: getattr(run, field) for field in LISTED}


def run_data(run: JobRun, *, traceback: bool = False) -> dict[str, Any]:
    """Return every field of the run, and its progress; the traceback only on request."""
    hidden = HIDDEN if traceback else {*HIDDEN, "traceback"}
    names = [field.attname for field in JobRun._meta.concrete_fields if field.attname not in hidden]
    data = {name: getattr(run, name) for name in names}
    progress = run.progress
    return {**data, "progress": progress and progress._asdict()}
