"""Show the reserved runs that are not due yet."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from cloudrun_jobs.management.output import add_json_option, next_command, write_rows
from cloudrun_jobs.models import JobRun, Status, Trigger
from cloudrun_jobs.terminal import Shrink, format_time

HELP = "Show the runs that reserve() created and that are not due yet."
add_arguments = add_json_option


def run(command: BaseCommand, **options: Any) -> None:
    runs = JobRun.objects.filter(trigger=Trigger.RESERVE, status=Status.PENDING).order_by("scheduled_for")
    write_rows(
        command,
        options,
        data=[_data(run) for run in runs],
        headings=("RUN", "JOB", "DUE", "REQUESTED BY", "SCHEDULER JOB"),
        rows=[_row(run) for run in runs],
        empty="No run is reserved.",
        shrink=(
            Shrink("RUN", 8, ""),
            Shrink("SCHEDULER JOB", 12),
            Shrink("DUE", 16, ""),
            Shrink("REQUESTED BY", 8),
            Shrink("JOB", 14),
        ),
        next_step=f"{next_command('cancel', 'RUN')} cancels a reserved run.",
    )


def _row(run: JobRun) -> tuple[str, ...]:
    scheduler_job = run.schedule or "(not created yet)"
    return str(run.pk), run.command, format_time(run.scheduled_for), run.requested_by, scheduler_job


def _data(run: JobRun) -> dict[str, Any]:
    fields = {name: getattr(run, name) for name in ("command", "argv", "scheduled_for", "requested_by")}
    return {"id": str(run.pk), **fields, "scheduler_job": run.schedule}
