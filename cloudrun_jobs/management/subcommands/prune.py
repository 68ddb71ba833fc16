"""Delete the records of old runs."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand

from cloudrun_jobs.management.output import next_command, write_message
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.runs import local_output, prune
from cloudrun_jobs.terminal import table

HELP = "Delete the records of old runs."


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--days", type=_count, default=30, help="The minimum age of deleted runs. Default: 30.")
    parser.add_argument("--keep", type=_count, default=100, help="Keep the newest runs of each job. Default: 100.")
    parser.add_argument("--dry-run", action="store_true", help="Show the number of runs without deleting them.")


def run(command: BaseCommand, **options: Any) -> None:
    age, counts = timedelta(days=options["days"]), dict[str, int]()
    for job in JobRun.objects.commands():
        runs = prune.prunable(job, age=age, keep=options["keep"])
        counts[job] = runs.count() if options["dry_run"] else prune.delete(runs)
    rows = [(job, str(count)) for job, count in counts.items() if count]
    if rows:
        command.stdout.write(table(("JOB", "RUNS"), *rows))
    done = "would be deleted. Run without --dry-run to delete them" if options["dry_run"] else "deleted"
    left = ""
    if not options["dry_run"]:
        _remove_output()
        left = f" {next_command('stats')} shows what is left."
    write_message(command, f"{sum(counts.values())} runs {done}.{left}")


def _remove_output() -> None:
    """Delete the kept output of local runs that are no longer recorded."""
    names = local_output.names()
    recorded = JobRun.objects.filter(execution__in=names).values_list("execution", flat=True)
    local_output.remove(names - {*recorded})


def _count(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else -1  # More overflow a timedelta.
    if number < 0:
        raise ArgumentTypeError(f"expected a whole number from 0 to 99999, got {text!r}")
    return number
