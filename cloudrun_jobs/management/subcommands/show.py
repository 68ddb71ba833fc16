"""Shows one run."""

from __future__ import annotations

import json
import shlex
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.core.serializers.json import DjangoJSONEncoder

from cloudrun_jobs.management.subcommands.table import table
from cloudrun_jobs.management.subcommands.words import moment, status, took
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.models.runs import is_run_id, short_name

HELP = "Show one run."


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("id", metavar="run", help="Its id, or the name of its execution.")
    parser.add_argument("--traceback", action="store_true", help="With the traceback of what it raised.")
    parser.add_argument("--json", action="store_true", help="For machines.")


def run(command: BaseCommand, **options: Any) -> None:
    found = _find(options["id"])
    if options["json"]:
        command.stdout.write(_json(found, traceback=options["traceback"]))
        return
    command.stdout.write(table(*((name, value) for name, value in _facts(found) if value not in {"", "-"})))
    if options["traceback"] and found.traceback:
        command.stdout.write(f"\n{found.traceback}")
    elif found.traceback:
        command.stderr.write("Add --traceback to see where it was raised.", str)


def _find(name: str) -> JobRun:
    runs = JobRun.objects.filter(pk=name) if is_run_id(name) else JobRun.objects.filter(execution=short_name(name))
    if found := runs.first():
        return found
    of_job = f" {name}" if JobRun.objects.for_command(name).exists() else ""
    raise CommandError(f"No run {name!r} is recorded. `manage.py cloudrun_jobs runs{of_job}` shows which are.")


def _facts(run: JobRun) -> Iterator[tuple[str, str]]:
    yield "Run", str(run.pk)
    yield "Job", run.job
    yield "Command line", shlex.join(run.argv) if run.argv else ""
    yield "Status", status(run)
    yield "Error", ": ".join(filter(None, (run.error_class, run.error_message)))
    yield "Asked for by", ", ".join(filter(None, (run.requested_by, run.get_trigger_display())))
    yield "Scheduled for", moment(run.scheduled_for)
    for step in ("created", "sent", "started", "finished"):
        yield step.capitalize(), moment(getattr(run, f"{step}_at"))
    yield "Took", took(run)
    yield "Progress", str(run.progress or "")
    yield "Tasks", _tasks(run)
    yield "Result", json.dumps(run.result, ensure_ascii=False) if run.result is not None else ""
    yield "Execution", run.execution_name or run.execution or ""
    yield "Image", run.image
    yield "Log", run.log_uri


def _tasks(run: JobRun) -> str:
    counts = {name: getattr(run, f"{name}_count") for name in ("succeeded", "failed", "cancelled", "retried")}
    return ", ".join([str(run.task_count), *(f"{count} {name}" for name, count in counts.items() if count)])


def _json(run: JobRun, *, traceback: bool) -> str:
    facts = {field.attname: getattr(run, field.attname) for field in JobRun._meta.concrete_fields}
    if not traceback:
        del facts["traceback"]
    progress = run.progress
    return json.dumps(
        {**facts, "progress": progress and progress._asdict()}, cls=DjangoJSONEncoder, ensure_ascii=False
    )
