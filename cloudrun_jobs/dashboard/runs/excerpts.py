"""The texts of a run: their beginnings for its page, cut by the database, and the whole of one of them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db.models import Expression, QuerySet, TextField
from django.db.models.functions import Cast, Left

from cloudrun_jobs.dashboard.text import MAX_LENGTH
from cloudrun_jobs.models import JobRun, TaskRun, failures
from cloudrun_jobs.runs.data import cleansed_overrides
from cloudrun_jobs.runs.reruns import is_command_line

#: A longer JSON text is not indented on a page.
MAX_JSON_LENGTH = 10 * MAX_LENGTH
MAX_INDENTED_LENGTH = 4 * 2**20

TEXTS = {"error": "error_message", "traceback": "traceback", "image": "image", "logs": "log_uri"}
VALUES = {"arguments": "argv", "overrides": "overrides", "result": "result"}
TASK_TEXTS, TASK_VALUES = {"error": "error_message"}, {"arguments": "argv", "result": "result"}
TASK_FIELD = re.compile(r"task-([0-9]{1,9})-(error|arguments|result)")
ITEMS = "items"
#: A control character as JSON escapes it, after an even number of backslashes. The pages write it as \x1b.
CONTROL = re.compile(r"(?<!\\)((?:\\\\)*)\\u00([01][0-9a-f])")


def text_of(name: str) -> Expression:
    """Return the JSON text of a field: values that Python cannot decode are shown as well."""
    return Cast(name, TextField())


def start_of(name: str) -> Expression:
    """Return the beginning of a text, one character longer than a page shows."""
    return Left(name, MAX_LENGTH + 1)


def start_of_json(name: str) -> Expression:
    """Return the JSON text of a field, or its beginning if it is not indented on a page."""
    return Left(text_of(name), MAX_JSON_LENGTH + 1)


def decode(text: str | None) -> Any:
    """Return the JSON value; None if there is none, or if the text is not JSON."""
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return None


def readable(text: str | None) -> str | None:
    """Return the JSON text indented, or the text that it stands for; a text that is not JSON as it is."""
    if text is None:
        return None
    try:
        value = json.loads(text)
        return value if isinstance(value, str) else _indented(value)
    except (ValueError, RecursionError):
        return text


def _indented(value: Any) -> str:
    """Return the value as JSON. Raises `ValueError` if the indentation of nested values makes it too long."""
    parts, length = list[str](), 0
    for part in json.JSONEncoder(ensure_ascii=False, indent=2).iterencode(value):
        parts.append(part)
        length += len(part)
        if length > MAX_INDENTED_LENGTH:
            raise ValueError("too long")
    return CONTROL.sub(r"\1\\x\2", "".join(parts))


def command_line(text: str | None) -> str | None:
    """Return recorded arguments as a shell reads them."""
    arguments = decode(text)
    return shlex.join(arguments) if is_command_line(arguments) else text


def command_lines(runs: Sequence[JobRun]) -> list[str | None]:
    """Return the command line of each run, or its beginning, with one query."""
    rows: QuerySet[Any] = JobRun.objects.filter(pk__in=[run.pk for run in runs])
    texts = dict(rows.values_list("pk", start_of_json("argv")))
    return [command_line(texts.get(run.pk)) for run in runs]


def readable_overrides(text: str | None) -> str | None:
    """Return the overrides of a run indented, without the values of variables that are named like secrets."""
    overrides = decode(text)
    return readable(text if overrides is None else json.dumps(cleansed_overrides(overrides), ensure_ascii=False))


FORMATS = {"arguments": command_line, "overrides": readable_overrides, "result": readable}


def whole_text(run_id: UUID, field: str) -> str | None:
    """Return the whole text of a field of the run, or of one of its tasks; None if there is none."""
    if (task := TASK_FIELD.fullmatch(field)) is not None:
        rows = TaskRun.objects.filter(run=run_id, index=int(task[1]))
        return _read(rows, task[2], TASK_TEXTS, TASK_VALUES)
    runs = JobRun.objects.filter(pk=run_id)
    if field == ITEMS:
        return _items(runs.only("items_total", "shares").first())
    return _read(runs, field, TEXTS, VALUES)


def _read(rows: QuerySet[Any], field: str, texts: dict[str, str], values: dict[str, str]) -> str | None:
    if name := texts.get(field):
        return rows.values_list(name, flat=True).first() or None
    if name := values.get(field):
        return FORMATS[field](rows.values_list(text_of(name), flat=True).first())
    return None


def _items(run: JobRun | None) -> str | None:
    """Return the failed items of the run that its record lists."""
    found = failures.failed_items(run).listed if run and failures.claims_items(run) else ()
    return json.dumps([item._asdict() for item in found], ensure_ascii=False, indent=2) if found else None
