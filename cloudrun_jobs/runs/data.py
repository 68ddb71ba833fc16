"""A run's record as JSON-compatible data, for `--json` and the HTTP API."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db.models import Count, OuterRef, QuerySet, Subquery, Sum
from django.views.debug import SafeExceptionReporterFilter

from cloudrun_jobs.models import JobRun, Progress, Stats, TaskRun, failures
from cloudrun_jobs.models.values import combined_total

TIMES = ("created_at", "started_at", "finished_at")
#: The fields of a run in a list.
LISTED = ("id", "command", "status", "reason", "trigger", "requested_by", *TIMES, "execution", "backend", "queue")

#: The fields that are not shown, except the traceback on request.
HIDDEN = frozenset({"reducer", "traceback"})


def listed_data(run: JobRun) -> dict[str, Any]:
    """Return what a list shows of the run."""
    return {field: getattr(run, field) for field in LISTED}


def stats_data(stats: Stats) -> dict[str, Any]:
    """Return the statistics of a job; durations are seconds."""
    return {**stats._asdict(), "p50": _seconds(stats.p50), "p95": _seconds(stats.p95)}


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()


def run_data(run: JobRun, *, traceback: bool = False) -> dict[str, Any]:
    """Return every field of the run, its progress and its failures; the traceback only on request."""
    data = record_data(run, traceback=traceback)
    return {**data, "progress": progress_data(run.progress), **failures_data(run)}


def failures_data(run: JobRun) -> dict[str, Any]:
    """Return the first failed tasks and items of the run, and the number of each."""
    tasks, items = failures.failures_of(run)
    return {"failed_tasks": _failures_data(tasks), "failed_items": _failures_data(items)}


def _failures_data(found: failures.Failures[Any]) -> dict[str, Any]:
    return {"count": found.count, "first": [each._asdict() for each in found.listed]}


def record_data(run: JobRun, *, traceback: bool = False) -> dict[str, Any]:
    """Return every field of the run, without secrets; the traceback only on request."""
    hidden = HIDDEN - {"traceback"} if traceback else HIDDEN
    names = [field.attname for field in JobRun._meta.concrete_fields if field.attname not in hidden]
    return {**{name: getattr(run, name) for name in names}, "overrides": cleansed_overrides(run.overrides)}


def cleansed_overrides(overrides: Any) -> Any:
    """Return the overrides of a run without the values of variables that are named like secrets."""
    if not isinstance(overrides, dict) or not isinstance(overrides.get("env"), dict):
        return overrides
    return {**overrides, "env": {name: _cleansed(name, value) for name, value in overrides["env"].items()}}


def _cleansed(name: str, value: Any) -> Any:
    reporter = SafeExceptionReporterFilter
    return reporter.cleansed_substitute if reporter.hidden_settings.search(name) else value


def progress_data(progress: Progress | None) -> dict[str, Any] | None:
    return progress and progress._asdict()


def read_progress(run_ids: Collection[UUID], only: Sequence[str] = ()) -> Iterator[tuple[JobRun, Progress | None]]:
    """Yield these runs without their hidden fields, or with `only`, each with its progress, with one query."""
    reports = TaskRun.objects.filter(run=OuterRef("pk"), progress_done__isnull=False)
    texts = reports.exclude(progress_text="").order_by("-heartbeat_at").values("progress_text")[:1]
    runs: QuerySet[Any] = JobRun.objects.filter(pk__in=run_ids).annotate(
        done=Sum("tasks__progress_done"),
        total=Sum("tasks__progress_total"),
        totals=Count("tasks__progress_total"),
        text=Subquery(texts),
    )
    for run in runs.only(*only) if only else runs.defer(*HIDDEN):
        total = combined_total(run.total, run.totals, task_count=run.task_count, items=run.items_total)
        yield run, None if run.done is None else Progress(run.done, total, run.text or "")
