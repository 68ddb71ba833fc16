"""Show statistics of each job."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from cloudrun_jobs.management.output import add_json_option, next_command, write_rows
from cloudrun_jobs.models import JobRun, Stats, Status
from cloudrun_jobs.runs.data import stats_data
from cloudrun_jobs.terminal import Shrink, format_time

HELP = "Show how the newest 100 runs of each job ended, and when it last succeeded and failed."
add_arguments = add_json_option


def run(command: BaseCommand, **options: Any) -> None:
    by_job = JobRun.objects.stats()
    write_rows(
        command,
        options,
        data={job: stats_data(stats) for job, stats in by_job.items()},
        headings=("JOB", "LAST SUCCESS", "LAST FAILURE", "NEWEST RUNS"),
        rows=[_row(job, stats) for job, stats in by_job.items()],
        empty="No run is recorded.",
        shrink=(
            Shrink("LAST SUCCESS", 16, ""),
            Shrink("LAST FAILURE", 16, ""),
            Shrink("NEWEST RUNS", 20),
            Shrink("JOB", 14),
        ),
        next_step=f"{next_command('runs', 'JOB', '--failed')} lists the failures of a job.",
    )


def _row(job: str, stats: Stats) -> tuple[str, ...]:
    counts = ", ".join(f"{stats.counts[status]} {status}" for status in Status if status in stats.counts)
    return job, format_time(stats.last_success), format_time(stats.last_failure), counts
