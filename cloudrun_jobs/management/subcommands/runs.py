"""Shows the latest runs."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management import get_commands
from django.core.management.base import BaseCommand, CommandError
from django.core.serializers.json import DjangoJSONEncoder

from cloudrun_jobs.management.subcommands import words
from cloudrun_jobs.management.subcommands.table import table
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.suggestions import did_you_mean

HELP = "Show the latest runs."
FIELDS = (
    "id",
    "command",
    "status",
    "reason",
    "trigger",
    "requested_by",
    "created_at",
    "started_at",
    "finished_at",
    "execution",
)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("job", nargs="?", help="The command. Default: all.")
    parser.add_argument("--failed", action="store_true", help="Only those that failed or were lost.")
    parser.add_argument("--running", action="store_true", help="Only those that have not ended.")
    parser.add_argument("--limit", type=int, default=50, help="How many. Default: 50.")
    parser.add_argument("--json", action="store_true", help="For machines.")


def run(command: BaseCommand, **options: Any) -> None:
    if options["limit"] < 1:
        raise CommandError(f"--limit: expected at least 1, got {options['limit']}.")
    found = list(_asked_for(options).newest_first().only(*FIELDS)[: options["limit"]])
    if options["json"]:
        rows = [{field: getattr(one, field) for field in FIELDS} for one in found]
        command.stdout.write(json.dumps(rows, cls=DjangoJSONEncoder, ensure_ascii=False))
    elif found:
        command.stdout.write(table(("RUN", "JOB", "STATUS", "CREATED", "TOOK", "ASKED BY"), *map(_row, found)))
    else:
        command.stderr.write("No such run is recorded.", str)


def _asked_for(options: dict[str, Any]) -> Any:
    runs = JobRun.objects.all()
    if job := options["job"]:
        runs = runs.for_command(job)
        if job not in get_commands() and not runs.exists():
            hint = did_you_mean(job, {*JobRun.objects.commands()})
            raise CommandError(f"There is no command {job!r}, and no run of one. {hint}".rstrip())
    runs = runs.failed() if options["failed"] else runs
    return runs.running() if options["running"] else runs


def _row(run: JobRun) -> tuple[str, ...]:
    who = run.requested_by or run.get_trigger_display()
    return str(run.pk), run.command, words.status(run), words.moment(run.created_at), words.took(run), who
