"""Print the log of a run."""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from cloudrun_jobs.backends.log_entries import SEVERITIES, LogEntry, LogQuery
from cloudrun_jobs.exceptions import InvalidJob
from cloudrun_jobs.management.exits import ERROR, FAILED
from cloudrun_jobs.management.finding import add_run_argument, find_run
from cloudrun_jobs.management.following import follow, state_text
from cloudrun_jobs.management.log_sources import source_of
from cloudrun_jobs.management.output import add_json_option, next_command, write_json, write_message
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.registry import find_jobs
from cloudrun_jobs.terminal import columns_of, escape

HELP = "Print the log of a run."
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
STYLES = {"WARNING": "WARNING", "ERROR": "ERROR", "CRITICAL": "ERROR", "ALERT": "ERROR", "EMERGENCY": "ERROR"}


def add_arguments(parser: ArgumentParser) -> None:
    add_run_argument(parser)
    parser.add_argument("--follow", action="store_true", help="Print new entries until the run has ended.")
    parser.add_argument("--task", type=_index, metavar="N", help="Only the entries of this task, from 0.")
    parser.add_argument(
        "--severity",
        type=str.upper,
        choices=SEVERITIES,
        default="DEFAULT",
        metavar="SEVERITY",
        help="Only entries of this severity or above, such as ERROR.",
    )
    parser.add_argument(
        "--since", type=_time, metavar="TIME", help="Only newer entries: 90s, 10m, 2h, 1d, or a time."
    )
    add_json_option(parser)


def run(command: BaseCommand, **options: Any) -> None:
    found = find_run(options["id"])
    _check_task(found, options["task"])
    query = LogQuery(task=options["task"], severity=options["severity"], since=options["since"])
    source = source_of(found, query)
    if source is None and (found.is_finished or not options["follow"]):
        raise CommandError(not_kept(found), returncode=FAILED)
    writer = EntryWriter(command, found, as_json=options["json"])
    if options["follow"]:
        if source is None:
            write_message(command, not_kept(found))
        found = follow(command, found, source, writer.write)
    elif source is not None:
        writer.write(found, source.read(found))
    if not options["json"]:
        write_message(command, _last_line(found, writer.count, is_filtered=query != LogQuery()))


def _check_task(run: JobRun, task: int | None) -> None:
    """Raise `CommandError` if the run has ended and had no such task."""
    if task is not None and run.is_finished and task >= run.task_count:
        known = "one task, 0" if run.task_count == 1 else f"the tasks 0 to {run.task_count - 1}"
        raise CommandError(f"--task: the run has {known}, got {task}.", returncode=ERROR)


def not_kept(run: JobRun) -> str:
    """Return the reason why there is no log."""
    return (
        f"The output of run {str(run.pk)[:8]} was not kept: it ran in the process that started it, or on another"
        f" machine. {next_command('run', run.command, '--local')} keeps the output of a new run."
    )


class EntryWriter:
    """Writes the entries of a run. Control characters are escaped."""

    def __init__(self, command: BaseCommand, run: JobRun, *, as_json: bool = False) -> None:
        self.count = 0  # Entries written so far.
        self._command, self._as_json = command, as_json
        self._shows_task = _may_have_tasks(run)

    def write(self, run: JobRun, entries: Iterable[LogEntry]) -> None:
        for entry in entries:
            self.count += 1
            if self._as_json:
                data = asdict(entry)
                del data["received"]
                write_json(self._command, data)
            else:
                self._write_lines(entry)
        self._command.stdout.flush()

    def _write_lines(self, entry: LogEntry) -> None:
        self._shows_task = self._shows_task or bool(entry.task)
        time = f"{timezone.localtime(entry.time):%m-%d %H:%M:%S}"
        task = f"[task {entry.task}] " if self._shows_task and entry.task is not None else ""
        severity = f"{'' if entry.severity == 'DEFAULT' else entry.severity:<7}"
        style: Callable[[str], str] = getattr(self._command.style, STYLES.get(entry.severity, ""), str)
        text = escape(entry.text.replace("\r\n", "\n").rstrip().expandtabs(4), keep="\n")
        margin = " " * columns_of(f"{time} {severity} {task}")
        self._command.stdout.write(f"{time} {style(severity)} {task}" + text.replace("\n", f"\n{margin}"))


def _may_have_tasks(run: JobRun) -> bool:
    """Return True if the run has several tasks. Its record has their number only once one has started."""
    requested = run.elements or (run.overrides or {}).get("tasks")
    if run.is_finished or run.started_at is not None or requested:
        return max(run.task_count, requested or 1) > 1
    job = find_jobs().jobs.get(run.command)
    try:
        return job is not None and job.spec.tasks > 1
    except InvalidJob:
        return False


def _last_line(run: JobRun, count: int, *, is_filtered: bool) -> str:
    nothing = "" if count else "No such entry. " if is_filtered else "There is no entry. "
    if not run.is_finished:
        return f"{nothing}{state_text(run)}. {next_command('logs', run.pk, '--follow')} follows its log."
    return f"{nothing}{state_text(run)}. {next_command('show', run.pk)} shows it."


def _index(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise ArgumentTypeError(f"expected the number of a task, from 0, got {text!r:.100}")
    return int(text)


def _time(text: str) -> datetime:
    """Return the time of "10m" ago, or of an ISO time, in the project's time zone unless it has one."""
    try:
        if found := re.fullmatch(r"([0-9]{1,6})([smhd])", text):
            return datetime.now(UTC) - timedelta(**{UNITS[found[2]]: int(found[1])})
        if (when := parse_datetime(text)) is not None:
            return (when if timezone.is_aware(when) else timezone.make_aware(when)).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ArgumentTypeError(f"expected 90s, 10m, 2h, 1d or a time such as 2026-01-31T09:00, got {text!r:.100}")
