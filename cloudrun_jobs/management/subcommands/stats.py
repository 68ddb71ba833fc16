"""Shows how each job fares."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.core.serializers.json import DjangoJSONEncoder

from cloudrun_jobs.management.subcommands.table import table
from cloudrun_jobs.management.subcommands.words import moment
from cloudrun_jobs.models import JobRun, Stats, Status

HELP = "Show how the newest 100 runs of each job ended, and when it last succeeded and failed."


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="For machines.")


def run(command: BaseCommand, **options: Any) -> None:
    stats = JobRun.objects.stats()
    if options["json"]:
        jobs = {job: figures._asdict() for job, figures in stats.items()}
        command.stdout.write(json.dumps(jobs, cls=DjangoJSONEncoder, ensure_ascii=False))
    elif stats:
        rows = [_row(job, figures) for job, figures in stats.items()]
        command.stdout.write(table(("JOB", "LAST SUCCESS", "LAST FAILURE", "NEWEST RUNS"), *rows))
    else:
        command.stderr.write("No run is recorded.", str)


def _row(job: str, stats: Stats) -> tuple[str, ...]:
    counts = ", ".join(f"{stats.counts[status]} {status}" for status in Status if status in stats.counts)
    return job, moment(stats.last_success), moment(stats.last_failure), counts
