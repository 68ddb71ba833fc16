"""Convert what `run()` returned to the JSON form in which it is stored."""

from __future__ import annotations

import json
import re
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import QuerySet, Sum, TextField
from django.db.models.functions import Cast, Length

from cloudrun_jobs.argv.redaction import masked
from cloudrun_jobs.exceptions import InvalidResult
from cloudrun_jobs.models import TaskRun

MAX_RESULT = 2**20  # Bytes of one task's result, and characters of the combined results in the run's row.
MAX_DEPTH = 30  # MariaDB reads at most 32 levels of JSON, and the results of several tasks are in a list.

# PostgreSQL cannot store NUL, which is "u0000" after an odd number of backslashes.
NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def to_json_value(command: str, result: Any, *, function: str = "run") -> Any:
    """Return the result of `run()` or `reduce()` as `json.loads()` returns it. Raises `InvalidResult`."""
    try:
        text = json.dumps(result, cls=DjangoJSONEncoder, allow_nan=False)
        value = json.loads(text)
        size = len(json.dumps(value, ensure_ascii=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidResult(
            f"{command}: {function}() returned a value that JSON cannot express: {error}.",
            hint="Return None, text, numbers, dates, or lists and dictionaries of them.",
        ) from error
    if NUL.search(text):
        hint = "Remove it: databases cannot store NUL."
        raise InvalidResult(f"{command}: {function}() returned text with a NUL character.", hint=hint)
    if _is_deeper(value, MAX_DEPTH):
        hint = "Return it flat, or as text."
        raise InvalidResult(f"{command}: expected a result of at most {MAX_DEPTH} levels, got more.", hint=hint)
    if size > MAX_RESULT:
        hint = "Store the data elsewhere and return its location."
        raise InvalidResult(f"{command}: expected a result of at most {MAX_RESULT} bytes, got {size}.", hint=hint)
    return masked(value)


def combined_results(tasks: QuerySet[TaskRun]) -> list[Any] | None:
    """Return the tasks' results by index; None if they are too long for one row and remain in the tasks' rows."""
    length = Length(Cast("result", TextField()))  # Measured in the database: the results may be a gigabyte.
    if (tasks.aggregate(length=Sum(length))["length"] or 0) > MAX_RESULT:
        return None
    return list(tasks.order_by("index").values_list("result", flat=True))


def _is_deeper(value: Any, depth: int) -> bool:
    """Return True if lists and dictionaries are nested deeper, without recursion, whose depth is limited."""
    level = [value]
    for _ in range(depth):
        nested = [item for item in level if isinstance(item, list | dict)]
        level = [child for item in nested for child in (item.values() if isinstance(item, dict) else item)]
    return any(isinstance(item, list | dict) for item in level)
