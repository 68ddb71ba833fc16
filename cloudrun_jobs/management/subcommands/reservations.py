"""Shows the runs that wait for their time."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.core.serializers.json import DjangoJSONEncoder

from cloudrun_jobs.management.subcommands.table import table
from cloudrun_jobs.management.subcommands.words import moment
from cloudrun_jobs.models import JobRun, Status, Trigger

HELP = "Show the runs that reserve() made and whose time has not come."


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="For machines.")


def run(command: BaseCommand, **options: Any) -> None:
    waiting = JobRun.objects.filter(trigger=Trigger.RESERVE, status=Status.PENDING).order_by("scheduled_for")
    if options["json"]:
        data = [_data(run) for run in waiting]
        command.stdout.write(json.dumps(data, cls=DjangoJSONEncoder, ensure_ascii=False))
    elif rows := [_row(run) for run in waiting]:
        command.stdout.write(table(("RUN", "JOB", "DUE", "ASKED BY", "ENTRY"), *rows))
    else:
        command.stderr.write("Nothing is reserved.", str)


def _row(run: JobRun) -> tuple[str, ...]:
    return str(run.pk), run.command, moment(run.scheduled_for), run.requested_by, run.schedule or "(not made yet)"


def _data(run: JobRun) -> dict[str, Any]:
    return {
        "run": str(run.pk),
        "command": run.command,
        "argv": run.argv,
        "scheduled_for": run.scheduled_for,
        "requested_by": run.requested_by,
        "entry": run.schedule,
    }
