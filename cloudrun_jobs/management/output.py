"""Write the output of a command: a table or JSON to stdout, messages to stderr."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from typing import Any

from django.core.management.base import BaseCommand
from django.core.serializers.json import DjangoJSONEncoder

from cloudrun_jobs.management.streams import is_utf8
from cloudrun_jobs.models.runs import is_run_id
from cloudrun_jobs.terminal import Shrink, escape, is_unsafe, table, width_of

ID_DIGITS = 8  # that identify a run


def add_json_option(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="Print JSON.")


def write_json(command: BaseCommand, data: Any, *, indent: int | None = None) -> None:
    text = json.dumps(data, cls=DjangoJSONEncoder, ensure_ascii=not is_utf8(command.stdout), indent=indent)
    # Line breaks of the indentation: those of values are escaped.
    safe = (json.dumps(char)[1:-1] if char != "\n" and is_unsafe(char) else char for char in text)
    command.stdout.write("".join(safe))


def write_rows(
    command: BaseCommand,
    options: dict[str, Any],
    *,
    data: Any,
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    empty: str,
    shrink: Sequence[Shrink] = (),
    next_step: str = "",
) -> None:
    """Write the data as JSON if `--json` was given, else the rows as a table, or a message if there are none.

    On a terminal that is too narrow, the columns in `shrink` are cut. A table is followed by the next step, on
    stderr.
    """
    if options["json"]:
        write_json(command, data)
    elif rows:
        command.stdout.write(table(headings, *rows, columns=width_of(command.stdout), shrink=shrink))
        if next_step:
            write_message(command, next_step)
    else:
        write_message(command, empty)


def write_message(command: BaseCommand, message: str, style: Callable[[str], str] = str) -> None:
    """Write a message, escaped, to stderr, apart from the data and without the colour of errors."""
    command.stderr.write(escape(message), style)


def next_command(subcommand: str, name: object = "", *options: str) -> str:
    """Return the next command line in back-ticks, with a run's id shortened to its first digits."""
    given = str(name)[:ID_DIGITS] if is_run_id(str(name)) else str(name)
    return f"`{' '.join(filter(None, ['manage.py cloudrun_jobs', subcommand, given, *options]))}`"
