"""Show one run."""

from __future__ import annotations

import json
import shlex
from argparse import ArgumentParser
from collections.abc import Iterator
from textwrap import indent
from typing import Any

from django.core.management.base import BaseCommand

from cloudrun_jobs.management.finding import add_run_argument, find_run
from cloudrun_jobs.management.output import add_json_option, write_json, write_message
from cloudrun_jobs.management.subcommands.runs import status_text
from cloudrun_jobs.models import JobRun, failures
from cloudrun_jobs.models.statuses import ITEMS
from cloudrun_jobs.runs.data import run_data
from cloudrun_jobs.terminal import escape, format_duration, format_time, table

HELP = "Show one run."


def add_arguments(parser: ArgumentParser) -> None:
    add_run_argument(parser)
    parser.add_argument(
        "--traceback", action="store_true", dest="show_traceback", help="Show the traceback of the exception."
    )
    add_json_option(parser)


def run(command: BaseCommand, **options: Any) -> None:
    found = find_run(options["id"])
    if options["json"]:
        write_json(command, run_data(found, traceback=options["show_traceback"]))
        return
    command.stdout.write(table(*((name, value) for name, value in _rows(found) if value not in {"", "-"})))
    if options["show_traceback"] and found.traceback:
        # Indented: a line of an exception's text is no row of the table.
        command.stdout.write(
            "\n" + indent(escape(found.traceback.expandtabs(4), keep="\n"), "  ", lambda line: True)
        )
    elif found.traceback:
        write_message(command, "Add --traceback to see the traceback.")


def _rows(run: JobRun) -> Iterator[tuple[str, str]]:
    yield "Run", str(run.pk)
    yield "Job", run.job
    yield "Command line", shlex.join(run.argv) if run.argv else ""
    yield "Backend", ", ".join(filter(None, (run.backend, run.queue and f"queue {run.queue}")))
    yield "Elements", str(run.elements or "")
    yield "Overrides", json.dumps(run.overrides, ensure_ascii=False) if run.overrides else ""
    yield "Status", status_text(run)
    yield "Error", ": ".join(filter(None, (run.error_class, run.error_message)))
    yield "Requested by", ", ".join(filter(None, (run.requested_by, run.get_trigger_display())))
    yield "Scheduled for", format_time(run.scheduled_for)
    for step in ("created", "sent", "started", "finished"):
        yield step.capitalize(), format_time(getattr(run, f"{step}_at"))
    yield "Took", format_duration(run.started_at, run.finished_at)
    yield "Progress", str(run.progress or "")
    yield "Tasks", _tasks(run)
    yield from _failures(run)
    yield "Result", json.dumps(run.result, ensure_ascii=False) if run.result is not None else ""
    yield "Execution", run.execution_name or run.execution or ""
    yield "Image", run.image
    yield "Log", run.log_uri


def _failures(run: JobRun) -> Iterator[tuple[str, str]]:
    """Yield the failed tasks, if the run has several tasks, and the failed items, unless its error lists them."""
    tasks, items = failures.failures_of(run)
    listed: list[tuple[str, failures.Failures[Any]]] = [("task", tasks)] if run.task_count > 1 else []
    listed += [] if run.reason == ITEMS else [("item", items)]
    for name, found in listed:
        for number, failed in enumerate(found.listed):
            yield "" if number else f"Failed {name}s", str(failed)
        if more := found.count - len(found.listed):
            yield "", f"and {more} more"


def _tasks(run: JobRun) -> str:
    counts = {name: getattr(run, f"{name}_count") for name in ("succeeded", "failed", "cancelled", "retried")}
    return ", ".join([str(run.task_count), *(f"{count} {name}" for name, count in counts.items() if count)])
