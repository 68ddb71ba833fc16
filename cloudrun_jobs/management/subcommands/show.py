"""Show one run or one job."""

from __future__ import annotations

import json
import shlex
from argparse import ArgumentParser
from collections.abc import Iterator
from textwrap import indent
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from cloudrun_jobs.backends.log_entries import LogQuery
from cloudrun_jobs.exceptions import OutcomeUnknown
from cloudrun_jobs.management import job_details
from cloudrun_jobs.management.finding import RUN_HELP, find_run_or_none, similar_run
from cloudrun_jobs.management.log_sources import source_of
from cloudrun_jobs.management.output import add_json_option, next_command, write_json, write_message
from cloudrun_jobs.management.subcommands.runs import status_text
from cloudrun_jobs.models import JobRun, failures
from cloudrun_jobs.models.statuses import ITEMS
from cloudrun_jobs.registry import find_jobs
from cloudrun_jobs.runs.data import cleansed_overrides, run_data
from cloudrun_jobs.runs.dispatch import NOT_SENT
from cloudrun_jobs.terminal import escape, format_duration, format_time, table

HELP = "Show one run, or one job."


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="run|job", help=f"{RUN_HELP} Or the name of a job.")
    parser.add_argument(
        "--traceback", action="store_true", dest="show_traceback", help="Show the traceback of the exception."
    )
    parser.add_argument("--offline", action="store_true", help="Call no Google API for a job.")
    add_json_option(parser)


def run(command: BaseCommand, **options: Any) -> None:
    name = options["name"]
    found = find_run_or_none(name)
    if found is None and name in (jobs := find_jobs()).jobs.keys() | jobs.unreadable.keys():
        job_details.show(command, name, as_json=options["json"], offline=options["offline"])
    elif found is None:
        raise _unknown(name, {*jobs.jobs})
    else:
        _show_run(command, found, options)


def _unknown(name: str, jobs: set[str]) -> CommandError:
    if JobRun.objects.for_command(name).exists():
        hint = f"{next_command('runs', name)} lists the runs of the job, which no longer exists."
    else:
        hint = similar_run(name, jobs) or f"{next_command('runs')} lists the runs, `list` the jobs."
    return CommandError(f"No run {name!r} is recorded, and no job has this name. {hint}")


def _show_run(command: BaseCommand, found: JobRun, options: dict[str, Any]) -> None:
    with_traceback = options["show_traceback"]
    if options["json"]:
        write_json(command, run_data(found, traceback=with_traceback))
        return
    command.stdout.write(table(*((name, value) for name, value in _rows(found) if value not in {"", "-"})))
    if with_traceback and found.traceback:
        # Indented: a line of an exception's text is no row of the table.
        command.stdout.write(
            "\n" + indent(escape(found.traceback.expandtabs(4), keep="\n"), "  ", lambda line: True)
        )
    elif found.traceback:
        write_message(command, "Add --traceback to see the traceback.")
    write_message(command, _next_step(found))


def _next_step(found: JobRun) -> str:
    if not found.is_finished:
        follow, cancel = next_command("logs", found.pk, "--follow"), next_command("cancel", found.pk)
        return f"{follow} follows its log, and {cancel} cancels it."
    if found.error_class == OutcomeUnknown.__name__:
        return "An execution may have been started: look for it before you repeat the run."
    again = f"{next_command('rerun', found.pk)} runs it again."
    has_log = found.reason != NOT_SENT and source_of(found, LogQuery()) is not None
    return f"{next_command('logs', found.pk)} prints its log, and {again}" if has_log else again


def _rows(run: JobRun) -> Iterator[tuple[str, str]]:
    yield "Run", str(run.pk)
    yield "Job", run.job
    yield "Command line", shlex.join(run.argv) if run.argv else ""
    yield "Backend", ", ".join(filter(None, (run.backend, run.queue and f"queue {run.queue}")))
    yield "Elements", str(run.elements or "")
    yield "Overrides", json.dumps(cleansed_overrides(run.overrides), ensure_ascii=False) if run.overrides else ""
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
