"""What `run()` returned, in the form in which it is kept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import QuerySet, Sum, TextField
from django.db.models.functions import Cast, Length

from cloudrun_jobs.exceptions import InvalidResult
from cloudrun_jobs.models import TaskRun

MAX_RESULT = 2**20  # Bytes of one task's result, and characters of all of a run's together in its row.
MAX_DEPTH = 30  # MariaDB reads 32 levels of JSON at most, and the results of several tasks stand in a list.

# PostgreSQL keeps no NUL: an odd number of backslashes before "u0000" is one, an even number is text.
NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def to_json_value(command: str, result: Any) -> Any:
    """Return what the result becomes on its way through JSON. Raises `InvalidResult`."""
    try:
        text = json.dumps(result, cls=DjangoJSONEncoder, allow_nan=False)
        value = json.loads(text)
        size = len(json.dumps(value, ensure_ascii=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidResult(
            f"{command}: run() returned what JSON cannot say: {error}.",
            hint="Return None, text, numbers, dates, or lists and dictionaries of them.",
        ) from error
    if NUL.search(text):
        hint = "Remove it: databases keep text without NUL."
        raise InvalidResult(f"{command}: run() returned text with a NUL character.", hint=hint)
    if _is_deeper(value, MAX_DEPTH):
        hint = "Return it flat, or as text."
        raise InvalidResult(f"{command}: expected a result of at most {MAX_DEPTH} levels, got more.", hint=hint)
    if size > MAX_RESULT:
        hint = "Store the data where it belongs, and return its name."
        raise InvalidResult(f"{command}: expected a result of at most {MAX_RESULT} bytes, got {size}.", hint=hint)
    return value


def combined_results(tasks: QuerySet[TaskRun]) -> list[Any] | None:
    """Return what tasks returned, by index; None where it is too long for one row, and stands in theirs alone."""
    length = Length(Cast("result", TextField()))  # As the database writes them: nobody reads a gigabyte to know.
    if (tasks.aggregate(length=Sum(length))["length"] or 0) > MAX_RESULT:
        return None
    return list(tasks.order_by("index").values_list("result", flat=True))


def _is_deeper(value: Any, depth: int) -> bool:
    """Say whether lists and dictionaries are nested deeper, without a recursion that could be too deep itself."""
    level = [value]
    for _ in range(depth):
        level = [child for item in level for child in _children(item)]
    return any(isinstance(item, list | dict) for item in level)


def _children(item: Any) -> Iterable[Any]:
    if isinstance(item, dict):
        return item.values()
    return item if isinstance(item, list) else ()
