"""The published schema of a job's options, against what its parser accepts."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.core.management.base import CommandParser
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from cloudrun_jobs import InvalidArguments
from cloudrun_jobs.argv import parser_of
from cloudrun_jobs.command_line import build
from cloudrun_jobs.http.errors import HttpError
from cloudrun_jobs.http.jobs import job_options
from cloudrun_jobs.http.options import option_schema, read_option
from tests.jobs.management.commands import echo, everything

TEXTS = st.text(max_size=5) | st.sampled_from(
    ["7", "+7", " 7", "7.0", "1_0", "٣", "s", "fast", "True", "\0", "-x", "--"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(TEXTS, SCALARS, max_size=2)
INTEGER = {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": "^[+-]?[0-9]{1,4000}$"}]}
NUMBER = {
    "anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^[+-]?[0-9]{1,300}(\.[0-9]{1,300})?$"}],
}
TWO_INTEGERS = {"type": "array", "items": INTEGER, "minItems": 2, "maxItems": 2}
LIST_OF_PAIRS = {"type": "array", "items": TWO_INTEGERS, "minItems": 1}
OPTIONS = [
    (echo.Command, "partner"),
    (echo.Command, "note"),
    (echo.Command, "words"),
    *((everything.Command, name) for name in ("tag", "shop", "dry_run", "wet", "mode", "mail", "size")),
]


def is_accepted(command: type[Any], name: str, value: Any) -> bool:
    """Return True if the job can be started with this value."""
    required = {"source": "a"} if command is everything.Command else {}
    job = command()
    try:
        build(job, (), {**required, **job_options(job, {name: value})}, {})
    except (HttpError, InvalidArguments):
        return False
    return True


def is_valid(command: type[Any], name: str, value: Any) -> bool:
    """Return True if the schema says that the value is one of the option."""
    actions = [action for action in parser_of(command())._actions if action.dest == name]
    return Draft202012Validator(option_schema(actions)).is_valid(value)


@pytest.fixture(autouse=True)
def _open(monkeypatch: pytest.MonkeyPatch) -> None:
    for command in (echo.Command, everything.Command):
        names = tuple(action.dest for action in parser_of(command())._actions)
        monkeypatch.setattr(command, "http_options", names, raising=False)


@pytest.mark.parametrize(("command", "name"), OPTIONS, ids=[name for _, name in OPTIONS])
@given(value=VALUES)
def test_schema_describes_accepted_values(command: type[Any], name: str, value: Any) -> None:
    """A value is valid by the schema if, and only if, the job can be started with it."""
    assert is_accepted(command, name, value) == is_valid(command, name, value)


@given(value=st.lists(SCALARS, max_size=3))
def test_valid_list_of_an_open_option_is_accepted(value: Any) -> None:
    """argparse ends such a list at a dash; the schema leaves out a list of one value that begins with one."""
    assert is_accepted(everything.Command, "many", value) or not is_valid(everything.Command, "many", value)


def argument(*names: str, **options: Any) -> Any:
    return CommandParser().add_argument(*names, **options)


@pytest.mark.parametrize(
    ("options", "schema"),
    [
        ({"type": json.loads}, {}),
        ({"type": Decimal, "default": Decimal(1)}, NUMBER),
        ({"type": float, "default": float("inf"), "help": "50%% of %(default)s"}, NUMBER),
        (
            {"type": float, "default": 2.5, "help": "50%% of it"},
            {**NUMBER, "default": 2.5, "description": "50% of it"},
        ),
        ({"choices": [1, 2], "type": int, "required": True}, {"enum": [1, 2]}),
        ({"choices": range(1000), "type": int, "required": True}, INTEGER),
        ({"type": UUID, "required": True}, {"type": "string", "format": "uuid"}),
        (
            {"nargs": 2, "type": int, "default": ()},
            {"type": "array", "items": INTEGER, "minItems": 2, "maxItems": 2},
        ),
        ({"nargs": 2, "type": int, "action": "append", "default": ["x"]}, LIST_OF_PAIRS),
        ({"action": "count", "default": 1}, {"type": "integer", "minimum": 1, "maximum": 100, "default": 1}),
    ],
)
def test_schema_of_an_argument(options: dict[str, Any], schema: Any) -> None:
    """The type, the number of values, and the default if JSON has it."""
    assert option_schema([argument("--option", **options)]) == schema


def test_schema_of_an_option_that_several_arguments_set() -> None:
    """It has the values of each."""
    parser = CommandParser()
    flags = [
        parser.add_argument(f"--{mode}", dest="mode", action="store_const", const=mode) for mode in ("a", "b")
    ]

    assert option_schema(flags) == {"anyOf": [{"enum": ["a", None]}, {"enum": ["b", None]}]}


@pytest.mark.parametrize(
    ("options", "value", "read"),
    [
        ({"type": json.loads}, {"1m": 1}, '{"1m": 1}'),
        ({"type": json.loads}, [1], "[1]"),
        ({"type": json.loads, "action": "append"}, [[1], {}], ["[1]", "{}"]),
        ({"type": int, "nargs": "+"}, [1.0, "2"], [1, "2"]),
        ({"type": int, "nargs": 2, "action": "append"}, [[1.0, 2]], [[1, 2]]),
    ],
)
def test_values_are_read_for_the_parser(options: dict[str, Any], value: Any, read: Any) -> None:
    """A JSON value goes to `json.loads` as text; items of lists are read like single values."""
    found = read_option(argument("--option", **options), value)

    assert (found, repr(found)) == (read, repr(read))
