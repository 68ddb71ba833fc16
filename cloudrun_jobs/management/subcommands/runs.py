"""Show the latest runs."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.core.management import get_commands
from django.core.management.base import BaseCommand, CommandError

from cloudrun_jobs.conf import DEFAULT_ALIAS
from cloudrun_jobs.management.output import add_json_option, next_command, write_rows
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.registry import find_jobs
from cloudrun_jobs.runs.data import LISTED, listed_data
from cloudrun_jobs.suggestions import did_you_mean
from cloudrun_jobs.terminal import Shrink, format_duration, format_time

HEADINGS = ("RUN", "JOB", "STATUS", "CREATED", "TOOK", "BACKEND", "REQUESTED BY")
# The first eight digits name a run; the time keeps its minute.
SHRINK = (
    Shrink("RUN", 8, ""),
    Shrink("CREATED", 16, ""),
    Shrink("REQUESTED BY", 8),
    Shrink("STATUS", 9),
    Shrink("JOB", 10),
    Shrink("BACKEND", 7),
)
MAX_LIMIT_DIGITS = 9
HELP = "Show the latest runs."


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("job", nargs="?", help="The command. Default: all.")
    parser.add_argument("--failed", action="store_true", help="Show only runs that failed or were lost.")
    parser.add_argument("--running", action="store_true", help="Show only runs that have not ended.")
    parser.add_argument("--limit", type=_limit, default=50, help="The number of runs. Default: 50.")
    add_json_option(parser)


def run(command: BaseCommand, **options: Any) -> None:
    runs = list(_selected(options).newest_first().only(*LISTED)[: options["limit"]])
    write_rows(
        command,
        options,
        data=[listed_data(run) for run in runs],
        headings=HEADINGS,
        rows=[[*row_of(run).values()] for run in runs],
        empty="No such run is recorded.",
        shrink=SHRINK,
        next_step=f"{next_command('show', runs[0].pk)} shows the newest run." if runs else "",
    )


def _limit(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_LIMIT_DIGITS else 0
    if number < 1:
        raise ArgumentTypeError(f"expected a whole number from 1 to {'9' * MAX_LIMIT_DIGITS}, got {text!r:.100}")
    return number


def status_text(run: JobRun) -> str:
    """Return a run's status, with the reason if it adds something."""
    return f"{run.status} ({run.reason})" if run.reason not in {"", run.status} else run.status


def _selected(options: dict[str, Any]) -> Any:
    runs = JobRun.objects.all()
    if job := options["job"]:
        runs = runs.for_command(job)
        if job not in get_commands() and not runs.exists():
            hint = did_you_mean(job, {*JobRun.objects.commands(), *find_jobs().jobs})
            raise CommandError(f"There is no command {job!r}, and no run of one. {hint}".rstrip())
    runs = runs.failed() if options["failed"] else runs
    return runs.running() if options["running"] else runs


def row_of(run: JobRun) -> dict[str, str]:
    """Return the cells of a run's row by their headings."""
    return {
        "RUN": str(run.pk),
        "JOB": run.command,
        "STATUS": status_text(run),
        "CREATED": format_time(run.created_at),
        "TOOK": format_duration(run.started_at, run.finished_at),
        "BACKEND": run.backend or DEFAULT_ALIAS,
        "REQUESTED BY": run.requested_by or run.get_trigger_display(),
    }
