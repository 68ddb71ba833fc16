"""What the form accepts is what the command's parser reads from the same values on the command line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from django.core.management.base import CommandError, CommandParser
from django.http import QueryDict
from hypothesis import event, example, given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from cloudrun_jobs.dashboard.start.form import StartForm
from cloudrun_jobs.exceptions import InvalidArguments
from tests.dashboard.start_pages import job_with
from tests.jobs.management.commands import everything

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8) | st.sampled_from(
    ["-1", "--", "-", "--settings=x", "a b", "a\nb", "=", "@a", "0", "1_0", "\0", "secret:x", "é", "🙂", "None"]
)
NUMBERS = st.integers().map(str) | st.floats().map(str) | TEXTS


class Kind(NamedTuple):
    """How an argument is declared, its values in a form, and what they are on the command line."""

    options: dict[str, Any]
    values: SearchStrategy[Any]
    tokens: Callable[[str, Any], list[str]]


def one(name: str, value: str) -> list[str]:
    return [f"{name}={value}"]


def flag(name: str, value: str) -> list[str]:
    return [name]


def lines(name: str, value: str) -> list[str]:
    """One use of the option for each line that is not empty."""
    texts = value.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [f"{name}={text}" for text in texts if text]


def chosen(name: str, value: list[str]) -> list[str]:
    return [f"{name}={text}" for text in value]


LISTS = st.lists(TEXTS, min_size=1, max_size=3).map("\r\n".join)
CHOICES = st.lists(st.sampled_from("ab"), min_size=1, unique=True)
ON = st.just("on")
OPTIONS = [
    Kind({}, TEXTS, one),
    Kind({"default": "d"}, TEXTS, one),
    Kind({"type": int}, NUMBERS, one),
    Kind({"type": float, "default": 1.5}, NUMBERS, one),
    Kind({"type": json.loads}, st.sampled_from(["{}", "[1]", "null", "{", "1.0", '"\\ud800"', " 1"]), one),
    Kind({"choices": ["a", "b b", "-c"]}, st.sampled_from(["a", "b b", "-c", "d"]), one),
    Kind({"choices": [1, 2], "type": int}, st.sampled_from(["1", "2", "3"]), one),
    Kind({"action": "store_true"}, ON, flag),
    Kind({"action": "store_false", "default": True}, ON, flag),
    Kind({"action": "store_const", "const": "c"}, ON, flag),
    Kind({"action": "append_const", "const": "c", "default": ["d"]}, ON, flag),
    Kind({"action": "count", "default": 0}, st.integers(0, 5).map(str), lambda name, value: [name] * int(value)),
    Kind({"action": "append"}, LISTS, lines),
    Kind({"action": "append", "type": int, "default": [7]}, LISTS, lines),
    Kind({"action": "extend", "nargs": "+"}, LISTS, lines),
    Kind(
        {"action": "append", "choices": ["a", "b"]},
        st.lists(st.sampled_from("ab"), min_size=1, unique=True),
        chosen,
    ),
    Kind(
        {"action": argparse.BooleanOptionalAction},
        st.sampled_from(["yes", "no"]),
        lambda name, value: [name if value == "yes" else f"--no-{name[2:]}"],
    ),
]
POSITIONAL = Kind({"nargs": "?"}, TEXTS, lambda name, value: ["--", value])


class Given(NamedTuple):
    kind: Kind
    value: Any  # None: the field is left as it is.


@st.composite
def arguments(draw: Any) -> dict[str, Given]:
    """Draw a parser's arguments by name, the positional last, with their values."""
    kinds = draw(st.lists(st.sampled_from(OPTIONS), max_size=5))
    named = {f"--o{number}": kind for number, kind in enumerate(kinds)} | {"position": POSITIONAL}
    return {name: Given(kind, draw(st.none() | kind.values)) for name, kind in named.items()}


def add_all(parser: Any, given: dict[str, Given]) -> None:
    for name, (kind, _) in given.items():
        parser.add_argument(name, **kind.options)


def body(given: dict[str, Given]) -> QueryDict:
    """Return the body of the form: a browser sends line breaks as CR and LF."""
    data = QueryDict(mutable=True)
    for name, (_, value) in given.items():
        if value is not None:
            data.setlist(f"option-{name.lstrip('-')}", value if isinstance(value, list) else [value])
    return data


def read_on_the_command_line(given: dict[str, Given]) -> dict[str, Any] | None:
    """Return what the parser reads; None if it rejects the values."""
    parser = CommandParser(called_from_command_line=False, allow_abbrev=False)
    add_all(parser, given)
    tokens = [
        token for name, (kind, value) in given.items() if value is not None for token in kind.tokens(name, value)
    ]
    try:
        return vars(parser.parse_args(tokens))
    except CommandError:
        return None


def read_from_the_form(given: dict[str, Given]) -> dict[str, Any] | None:
    """Return what `run()` receives from `delay()`; None if the form or `delay()` rejects the values."""
    with job_with(lambda parser: add_all(parser, given)) as received:
        form = StartForm(everything.Command(), (), body(given))
        try:
            if form.is_valid():
                args, options = form.call()
                everything.Command().delay(*args, **options)
        except InvalidArguments:
            return None
    return received[0] if received else None


EACH_FORM = {
    "--o0": Given(OPTIONS[7], "on"),
    "--o1": Given(OPTIONS[12], "a\r\n-b"),
    "--o2": Given(OPTIONS[15], ["a"]),
    "position": Given(POSITIONAL, "c"),
}


@given(arguments())
@example(EACH_FORM)
def test_form_and_command_line_agree(given: dict[str, Given]) -> None:
    """A form never accepts what the parser rejects, and never changes a value."""
    arrived = read_from_the_form(given)
    event(f"accepted: {arrived is not None}")

    assert repr(arrived) in {repr(None), repr(read_on_the_command_line(given))}
