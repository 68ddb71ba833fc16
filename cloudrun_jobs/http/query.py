"""Read query parameters. Each has the schema that describes it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db.models import TextChoices

from cloudrun_jobs.http.errors import bad_request

if TYPE_CHECKING:
    from django.http import HttpRequest

MAX_TEXT = 200  # characters
MIN_YEAR, MAX_YEAR = 2000, 8999  # Databases differ beyond these years, and the year may differ in UTC.
TIME = r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})"  # RFC 3339


class Parameter(NamedTuple):
    """A parameter of a query."""

    #: Return the value of the parameter's text. Raises `ValueError`.
    read: Callable[[str], Any]
    schema: Mapping[str, Any]
    description: str
    #: The code of the error if every problem of the query has this code.
    code: str = "invalid_query"


def read_query(request: HttpRequest, parameters: Mapping[str, Parameter]) -> dict[str, Any]:
    """Return the values of the query's parameters. Raises `HttpError`, naming all that are invalid."""
    values: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for name, given in request.GET.lists():
        if name not in parameters:
            problems[name] = f"Unknown parameter; expected {', '.join(parameters) or 'none'}."
        elif len(given) != 1:
            problems[name] = f"Expected one value, got {len(given)}."
        else:
            try:
                values[name] = parameters[name].read(given[0])
            except ValueError as error:
                problems[name] = f"{error}."
    if problems:
        codes = {parameters[name].code if name in parameters else "invalid_query" for name in problems}
        code = codes.pop() if len(codes) == 1 else "invalid_query"
        raise bad_request(code, "The query is invalid.", fields=problems)
    return values


def text(description: str) -> Parameter:
    def read(value: str) -> str:
        if not 1 <= len(value) <= MAX_TEXT or "\0" in value:
            raise ValueError(f"Expected 1 to {MAX_TEXT} characters without NUL")
        return value

    schema = {"type": "string", "minLength": 1, "maxLength": MAX_TEXT, "pattern": r"^[^\u0000]*$"}
    return Parameter(read, schema, description)


def one_of(choices: type[TextChoices], description: str) -> Parameter:
    def read(value: str) -> str:
        if value not in choices.values:
            raise ValueError(f"Expected {', '.join(choices.values)}, got {value[:100]!r}")
        return value

    return Parameter(read, {"type": "string", "enum": list(choices.values)}, description)


def parse_time(value: str) -> datetime:
    """Return a time in RFC 3339. Raises `ValueError`."""
    expected = f"Expected a time such as '2026-01-02T03:04:05Z', got {value[:100]!r}"
    try:
        moment = datetime.fromisoformat(value) if re.fullmatch(TIME, value, re.ASCII) else None
    except ValueError:
        moment = None
    if moment is None or not MIN_YEAR <= moment.year <= MAX_YEAR:
        raise ValueError(expected)
    return moment.astimezone(UTC)  # PostgreSQL rejects offsets beyond those of time zones.


def time(description: str) -> Parameter:
    return Parameter(
        parse_time, {"type": "string", "format": "date-time", "pattern": "^[2-8][0-9]{3}-"}, description
    )


def seconds(maximum: float, description: str) -> Parameter:
    def read(value: str) -> float:
        if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", value, re.ASCII) or float(value) > maximum:
            raise ValueError(f"Expected 0 to {maximum:g} seconds, got {value[:100]!r}")
        return float(value)

    return Parameter(read, {"type": "number", "minimum": 0, "maximum": maximum}, description)
