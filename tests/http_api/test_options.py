"""The published schema of a job's options, against what its parser accepts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from cloudrun_jobs import InvalidArguments
from cloudrun_jobs.argv import parser_of
from cloudrun_jobs.command_line import build
from cloudrun_jobs.http.errors import HttpError
from cloudrun_jobs.http.jobs import job_options
from cloudrun_jobs.http.options import option_schema
from tests.jobs.management.commands import echo, everything

TEXTS = st.text(max_size=5) | st.sampled_from(
    ["7", "+7", " 7", "7.0", "1_0", "٣", "s", "fast", "True", "\0", "-x", "--"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(TEXTS, SCALARS, max_size=2)
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
    action = next(action for action in parser_of(command())._actions if action.dest == name)
    return Draft202012Validator(option_schema(action)).is_valid(value)


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
