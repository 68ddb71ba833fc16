"""What `delay()` is given arrives unchanged, or is refused: every action of argparse, any value."""

from __future__ import annotations

import argparse
import math
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import pytest
from django.utils.dateparse import parse_duration
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs import InvalidArguments
from cloudrun_jobs.argv import parse, serialise
from tests.argv.parsers import make_parser, manage_parser

NASTY = (
    "",
    "-",
    "--",
    "-x",
    "--settings=evil",
    "--pythonpath=/x",
    "--settings",
    "a b",
    "'",
    '"',
    "$(id)",
    "\n",
    "\\",
    "=",
    "@file",
    "🦊",
    "日本語",
    "한국어",
    "-5",
    "x" * 32_768,
    "--help",
    "-- --settings=evil",
)
TEXT = st.sampled_from(NASTY) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
SAFE = TEXT.filter(lambda text: not text.startswith("-"))
NUMBER = st.integers(-(10**12), 10**12)
FLAGS = {"action": "store_true"}

# What is declared, and the values it can have.
ARGUMENTS: dict[str, tuple[dict[str, Any], st.SearchStrategy[Any]]] = {
    "store": ({}, TEXT),
    "store int": ({"type": int}, NUMBER),
    "store float": ({"type": float}, st.floats()),
    "store decimal": ({"type": Decimal}, st.decimals(allow_nan=False)),
    "store date": ({"type": date.fromisoformat}, st.dates()),
    "store datetime": ({"type": datetime.fromisoformat}, st.datetimes()),
    "store time": ({"type": time.fromisoformat}, st.times()),
    "store duration": (
        {"type": parse_duration},
        st.timedeltas(timedelta(0), timedelta(days=9999)),
    ),
    "store uuid": ({"type": UUID}, st.uuids()),
    "store path": ({"type": PurePosixPath}, SAFE.map(PurePosixPath)),
    "store choices": ({"choices": ["a", "-b", "c d"]}, st.sampled_from(["a", "-b", "c d"])),
    "store int choices": ({"type": int, "choices": range(3)}, st.integers(0, 2)),
    "store default": ({"default": "x"}, TEXT),
    "store nargs 1": ({"nargs": 1}, st.lists(TEXT, min_size=1, max_size=1)),
    "store nargs 2": ({"nargs": 2}, st.lists(SAFE, min_size=2, max_size=2)),
    "store nargs 2 int": ({"nargs": 2, "type": int}, st.lists(NUMBER, min_size=2, max_size=2)),
    "store nargs ?": ({"nargs": "?", "const": "constant"}, TEXT | st.just("constant")),
    "store nargs *": ({"nargs": "*"}, st.lists(SAFE)),
    "store nargs +": ({"nargs": "+"}, st.lists(SAFE, min_size=1)),
    "store true": ({"action": "store_true"}, st.booleans()),
    "store false": ({"action": "store_false"}, st.booleans()),
    "store const": ({"action": "store_const", "const": 7}, st.sampled_from([7, None])),
    "boolean": ({"action": argparse.BooleanOptionalAction}, st.sampled_from([True, False, None])),
    "boolean default": ({"action": argparse.BooleanOptionalAction, "default": True}, st.booleans()),
    "append": ({"action": "append"}, st.lists(TEXT, min_size=1)),
    "append int": ({"action": "append", "type": int}, st.lists(NUMBER, min_size=1)),
    "append default": (
        {"action": "append", "default": ["x"]},
        st.lists(TEXT).map(lambda more: ["x", *more]),
    ),
    "append nargs +": ({"action": "append", "nargs": "+"}, st.lists(st.lists(SAFE, min_size=1), min_size=1)),
    "append const": ({"action": "append_const", "const": "x"}, st.integers(1, 9).map(lambda n: ["x"] * n)),
    "extend": ({"action": "extend", "nargs": "+"}, st.lists(TEXT, min_size=1)),
    "extend *": ({"action": "extend", "nargs": "*"}, st.lists(TEXT)),
    "extend 2": (
        {"action": "extend", "nargs": 2},
        st.lists(st.tuples(SAFE, SAFE), min_size=1).map(lambda pairs: [text for pair in pairs for text in pair]),
    ),
    "count": ({"action": "count"}, st.integers(1, 50)),
    "count default": ({"action": "count", "default": 2}, st.integers(2, 50)),
}
POSITIONALS: dict[str, tuple[dict[str, Any], st.SearchStrategy[Any]]] = {
    "one": ({}, TEXT),
    "one int": ({"type": int}, NUMBER),
    "one date": ({"type": date.fromisoformat}, st.dates()),
    "optional": ({"nargs": "?"}, TEXT | st.none()),
    "two": ({"nargs": 2}, st.lists(TEXT, min_size=2, max_size=2)),
    "any": ({"nargs": "*"}, st.lists(TEXT)),
    "some": ({"nargs": "+"}, st.lists(TEXT, min_size=1)),
    "rest": ({"nargs": argparse.REMAINDER}, st.lists(SAFE)),
}
OPTION_NAMES = [["--opt"], ["-o"], ["-o", "--opt"]]


def has_double_dash(value: Any) -> bool:
    """Say whether the value '--' is in it, which some versions of argparse lose."""
    if isinstance(value, list):
        return any(map(has_double_dash, value))
    return value == "--"


def round_trip(parser: argparse.ArgumentParser, args: list[Any], options: dict[str, Any]) -> dict[str, Any]:
    """Serialise, show the arguments to manage.py's parser, and return what the command's parser makes of them."""
    argv = serialise(parser, args, options)
    early, _ = manage_parser().parse_known_args(argv)

    assert early.settings is None
    assert early.pythonpath is None

    return parse(parser, argv)


def arrives(
    parser: argparse.ArgumentParser, dest: str, value: Any, args: list[Any], options: dict[str, Any]
) -> bool:
    """Say whether the value came through; only the value '--' may be refused instead."""
    try:
        parsed = round_trip(parser, args, options)
    except InvalidArguments as error:
        return has_double_dash(value) and "loses the value '--'" in str(error)
    return same(value, parsed[dest])


def same(given: Any, arrived: Any) -> bool:
    """Compare by value and by type, and take NaN for itself."""
    if isinstance(given, float) and math.isnan(given):
        return isinstance(arrived, float) and math.isnan(arrived)
    return type(given) is type(arrived) and bool(given == arrived)


@pytest.mark.parametrize("names", OPTION_NAMES, ids=" ".join)
@pytest.mark.parametrize("kind", ARGUMENTS)
@given(data=st.data())
def test_every_option_survives(kind: str, names: list[str], data: st.DataObject) -> None:
    """Whatever an option can hold goes through arguments and comes back equal, of the same type."""
    declared, values = ARGUMENTS[kind]
    parser = make_parser()
    if declared.get("action") is argparse.BooleanOptionalAction:
        names = ["--opt"]
    parser.add_argument(*names, dest="opt", **declared)
    value = data.draw(values)

    assert arrives(parser, "opt", value, [], {"opt": value})


@pytest.mark.parametrize("by_name", [True, False], ids=["by name", "by position"])
@pytest.mark.parametrize("kind", POSITIONALS)
@given(data=st.data())
def test_every_positional_survives(kind: str, by_name: bool, data: st.DataObject) -> None:
    """Whatever a positional can hold goes through arguments and comes back equal, of the same type."""
    declared, values = POSITIONALS[kind]
    parser = make_parser()
    parser.add_argument("first")
    parser.add_argument("second", **declared)
    value = data.draw(values)
    args, options = (["x"], {"second": value}) if by_name else (["x", value], {})

    assert arrives(parser, "second", value, args, options)


@given(values=st.lists(TEXT.filter(lambda text: text != "--"), min_size=1), flag=st.booleans(), note=SAFE)
def test_positionals_that_take_the_rest_take_it_flat(values: list[str], flag: bool, note: str) -> None:
    """The last positional takes all arguments that are left, beside options of every kind."""
    parser = make_parser()
    parser.add_argument("words", nargs="+")
    parser.add_argument("--flag", action="store_true")
    parser.add_argument("--notes", nargs="*")

    parsed = round_trip(parser, list(values), {"flag": flag, "notes": [note]})

    assert (parsed["words"], parsed["flag"], parsed["notes"]) == (values, flag, [note])


@given(path=SAFE, text=TEXT.filter(lambda text: text != "--"), many=st.lists(SAFE))
def test_subcommands_get_their_own_arguments(path: str, text: str, many: list[str]) -> None:
    """A subcommand's options and positionals arrive, beside the options above it."""
    parser = make_parser()
    parser.add_argument("path")
    parser.add_argument("--many", nargs="*")
    parser.add_argument("--level", type=int)
    verbs = parser.add_subparsers(dest="verb", required=True)
    add = verbs.add_parser("add")
    add.add_argument("title")
    add.add_argument("--note")

    parsed = round_trip(parser, [path, "add", text], {"note": text, "many": many, "level": 3})

    assert (parsed["path"], parsed["verb"], parsed["title"]) == (path, "add", text)
    assert (parsed["note"], parsed["many"], parsed["level"]) == (text, many, 3)
