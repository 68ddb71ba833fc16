"""The key of a run is made of the options that were given and differ from their default."""

from __future__ import annotations

import argparse
import itertools
import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from django.core.management import call_command
from django.core.management.base import CommandParser
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs.locks import current, names
from cloudrun_jobs.locks.base import Owner
from cloudrun_jobs.locks.policy import required_locks
from tests.jobs.management.commands import echo

Declare = Callable[[Callable[[CommandParser], object]], None]
counter = itertools.count()


class Source:
    """What a type may return: it knows neither equality nor JSON."""

    def __init__(self, text: str) -> None:
        self.text = text


def now(text: str) -> datetime:
    return datetime.now(UTC)


class Window(argparse.Action):
    """Sets options other than its own."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        namespace.start, namespace.end = values.split("-")


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


@pytest.fixture
def declare(monkeypatch: pytest.MonkeyPatch) -> Declare:
    """Return a function that replaces the arguments of the job `echo`."""

    def declare(add_arguments: Callable[[CommandParser], object]) -> None:
        monkeypatch.setattr(echo.Command, "add_arguments", lambda self, parser: add_arguments(parser))

    return declare


@pytest.fixture
def held_labels(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The label of the lock that each run of `echo` holds for its options."""
    found: list[str] = []

    def run(self: echo.Command, *args: Any, **options: Any) -> None:
        found.extend(held.label for held in current().holders("crj1:") if "#" in held.label)

    monkeypatch.setattr(echo.Command, "run", run)
    return found


def key(*arguments: str, job: echo.Command | None = None) -> str:
    """Return the key of the run that these arguments start."""
    job = job or echo.Command()
    options = vars(job.create_parser("manage.py", "echo").parse_args(arguments))
    args = options.pop("args", ())
    return next(iter(required_locks(job.spec, {**options, "args": args}, job.get_lock_key))).name.key


CHANGING = {
    "now": lambda parser: parser.add_argument("--until", default=datetime.now(UTC)),
    "object": lambda parser: parser.add_argument("--source", default=Source("x")),
    "text of a type that changes": lambda parser: parser.add_argument(
        "--at", type=lambda _: uuid4(), default="now"
    ),
    "text of a type without equality": lambda parser: parser.add_argument("--source", type=Source, default="x"),
    "positional": lambda parser: parser.add_argument("id", nargs="?", default=uuid4()),
    "converted positional": lambda parser: parser.add_argument(
        "id", nargs="?", type=lambda _: uuid4(), default=""
    ),
    "list": lambda parser: parser.add_argument("ids", nargs="*", default=[next(counter)]),
    "appended": lambda parser: parser.add_argument("--id", action="append", default=[next(counter)]),
    "set_defaults": lambda parser: parser.set_defaults(number=next(counter), func=parser.format_help),
    "extra": lambda parser: parser.add_argument("--debug", default=lambda: None),
    "const": lambda parser: parser.add_argument(
        "--sum", dest="f", action="store_const", const=sum, default=uuid4()
    ),
    "later default": lambda parser: (parser.add_argument("--n"), parser.set_defaults(n=next(counter))),
    "not a number": lambda parser: parser.add_argument("--limit", type=float, default=math.nan),
    "file": lambda parser: parser.add_argument("--out", type=argparse.FileType(), default="-"),
    "shared": lambda parser: [
        parser.add_argument(f"--{x}", dest="x", default=next(counter)) for x in ("ab", "cd")
    ],
}


@pytest.mark.parametrize("add_arguments", CHANGING.values(), ids=CHANGING)
def test_default_is_not_in_the_key(declare: Declare, add_arguments: Any) -> None:
    """Two starts without options are the same run, even if a default is another at each start."""
    declare(add_arguments)

    assert key() == key() == names.for_arguments("echo", {}).key


@pytest.mark.django_db
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("start", [partial(call_command, "echo"), echo.Command().delay], ids=["call", "delay"])
@pytest.mark.parametrize("add_arguments", CHANGING.values(), ids=CHANGING)
def test_same_run_is_skipped_whatever_the_default(
    declare: Declare, held_labels: list[str], add_arguments: Any, start: Any
) -> None:
    """`call_command()` and `delay()` see that no option was given."""
    declare(add_arguments)
    current().acquire(names.for_arguments("echo", {}), 1, Owner(holder="echo-test-other", nonce="other"), 60)

    start()

    assert held_labels == []


EQUAL = {
    "typed": (lambda p: p.add_argument("--n", type=int, default=5), ["--n=5"]),
    "text": (lambda p: p.add_argument("--n", type=int, default="5"), ["--n=05"]),
    "other type": (lambda p: p.add_argument("--n", type=float, default=5), ["--n=5"]),
    "flag": (lambda p: p.add_argument("--x", action=argparse.BooleanOptionalAction, default=True), ["--x"]),
    "const": (lambda p: p.add_argument("--f", action="store_const", const=sum, default=sum), ["--f"]),
    "list": (lambda p: p.add_argument("--n", nargs="+", default=("a", "b")), ["--n", "a", "b"]),
    "positional": (lambda p: p.add_argument("n", nargs="?", default="x"), ["x"]),
    "without equality": (lambda p: p.add_argument("--s", type=Source, default="x"), ["--s=x"]),
    "duration": (lambda p: p.add_argument("--d", type=hours, default=timedelta(hours=1)), ["--d=1"]),
}


def hours(text: str) -> timedelta:
    return timedelta(hours=int(text))


@pytest.mark.parametrize(("add_arguments", "arguments"), EQUAL.values(), ids=EQUAL)
def test_given_default_is_the_default(declare: Declare, add_arguments: Any, arguments: list[str]) -> None:
    """An option that is given, and equals its default, is the same run as one that is left out."""
    declare(add_arguments)

    assert key(*arguments) == key()


VALUES = {
    "int": (int, "1", "2"),
    "text": (str, "a", "b"),
    "date": (date.fromisoformat, "2026-01-02", "2026-01-03"),
    "duration": (hours, "1", "2"),
    "decimal": (Decimal, "1.0", "1.1"),
    "infinity": (float, "inf", "1.5"),
    "enum": (Size, "s", "l"),
    "zone": (ZoneInfo, "Asia/Tokyo", "Asia/Seoul"),
    "address": (ip_address, "10.0.0.1", "::1"),
    "network": (ip_network, "10.0.0.0/8", "10.0.0.0/9"),
    "uuid": (UUID, "0" * 32, "1" * 32),
    "path": (Path, "a", "b"),
    "bytes": (str.encode, "a", "b"),
    "set": (set, "ab", "abc"),
    "range": (lambda text: range(int(text)), "1", "2"),
    "expression": (re.compile, "a", "b"),
    "json": (lambda text: {"x": [float(text)]}, "nan", "inf"),
    "function": ({"sum": sum, "max": max}.get, "sum", "max"),
    "class": ({"int": int, "str": str}.get, "int", "str"),
    "object": (Source, "a", "b"),
    "generator": (lambda text: (item for item in text), "ab", "cd"),
    "module": (__import__, "json", "re"),
    "object in a set": (lambda text: {1, Source(text)}, "a", "b"),
}


@pytest.mark.parametrize(("kind", "one", "other"), VALUES.values(), ids=VALUES)
def test_every_type_makes_a_key(declare: Declare, kind: Any, one: str, other: str) -> None:
    """Options are compared by value, or by text if the value has no JSON form."""
    declare(lambda parser: parser.add_argument("--x", type=kind))

    assert key(f"--x={one}") == key("--x", one) != key()
    assert key(f"--x={other}") not in {key(f"--x={one}"), key()}


@pytest.mark.parametrize(("kind", "one", "other"), VALUES.values(), ids=VALUES)
def test_every_type_makes_a_key_in_lists(declare: Declare, kind: Any, one: str, other: str) -> None:
    """The same holds for lists of values, in their order."""
    declare(
        lambda p: (p.add_argument("x", type=kind, nargs="*"), p.add_argument("--y", type=kind, action="append"))
    )
    keys = [
        key(one, other),
        key(other, one),
        key(f"--y={one}", f"--y={other}"),
        key(f"--y={one}"),
        key(one),
        key(),
    ]

    assert key(one, other) == key("--", one, other)
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("default", [uuid4, lambda: Source("x")], ids=["value", "object"])
def test_list_without_its_changing_default_is_in_the_key(declare: Declare, default: Any) -> None:
    """argparse appends to the default, which may be another at each start."""
    declare(lambda parser: parser.add_argument("--x", action="append", default=[default()]))

    assert key("--x=1") == key("--x", "1") != key()
    assert len({key("--x=1"), key("--x=2"), key("--x=1", "--x=2")}) == 3


@pytest.mark.django_db
def test_list_in_place_of_its_default_is_told_apart(declare: Declare, held_labels: list[str]) -> None:
    """`call_command()` may replace a default to which the command line can only append."""
    declare(lambda parser: parser.add_argument("--x", type=int, action="append", default=[1]))

    for values in ([2], [1, 2], [1, 2]):
        call_command("echo", x=values)

    assert held_labels[0] != held_labels[1] == held_labels[2]


@pytest.mark.django_db
def test_delay_takes_every_type(declare: Declare, held_labels: list[str]) -> None:
    """What the container will accept, `delay()` accepts, and tells apart."""
    declare(lambda parser: parser.add_argument("--x", type=Source))

    for value in ("a", "b", "a"):
        echo.Command().delay(x=value)

    assert held_labels[0] != held_labels[1] != held_labels[2] == held_labels[0]


def test_arguments_that_follow_the_parser_count(declare: Declare) -> None:
    """A command may add arguments in its own `create_parser()`."""

    class Command(echo.Command):
        def create_parser(self, *args: Any, **kwargs: Any) -> CommandParser:
            parser = super().create_parser(*args, **kwargs)
            add_subcommands(parser)
            parser.add_argument("--late", default=uuid4())
            return parser

    declare(lambda parser: None)
    keys = [key(*arguments, job=Command()) for arguments in ([], ["--late=1"], ["load"], ["load", "--day=1"], [])]

    assert len(set(keys)) == 4
    assert keys[0] == keys[-1]


def test_several_texts_are_not_a_default(declare: Declare) -> None:
    """A list of one text is not the text."""
    declare(lambda parser: parser.add_argument("--x", nargs="+", default="a"))

    assert key("--x", "a") != key()


def test_key_tells_constants_apart(declare: Declare) -> None:
    """Options that share a dest, with constants that have no JSON form, differ."""

    def add_arguments(parser: CommandParser) -> None:
        for function in (sum, min, max):
            parser.add_argument(
                f"--{function.__name__}", dest="f", action="store_const", const=function, default=max
            )

    declare(add_arguments)

    assert len({key("--sum"), key("--min"), key()}) == 3
    assert key("--max") == key("--sum", "--max") == key()


def add_subcommands(parser: CommandParser, **kwargs: Any) -> None:
    parser.add_argument("--n", type=int, default=1)
    subparsers = parser.add_subparsers(**kwargs)
    for name, default in (("load", 1), ("dump", 2)):
        subparser = subparsers.add_parser(name, aliases=[name[0]])
        subparser.add_argument("--n", type=int, default=default)
        subparser.add_argument("--day", default=uuid4())
        subparser.set_defaults(func=subparser.format_help, version=uuid4())


@pytest.mark.parametrize("kwargs", [{}, {"dest": "verb"}, {"required": True}])
def test_subcommands_are_told_apart(declare: Declare, kwargs: Any) -> None:
    """The chosen subcommand is in the key, also if only a function of `set_defaults()` says which it is."""
    declare(partial(add_subcommands, **kwargs))
    keys = [key("load"), key("dump"), key("load", "--n=2"), key("dump", "--n=1"), key("load", "--day=1")]

    assert len(set(keys)) == len(keys)
    assert key("load", "--n=1") == key("--n=5", "load") == key("load")
    assert key("dump", "--n=2") == key("dump")


def test_alias_is_the_same_subcommand(declare: Declare) -> None:
    """Without a dest, run() does not see which name was used."""
    declare(add_subcommands)

    assert key("l", "--day=1") == key("load", "--day=1")


def test_options_of_a_custom_action_are_in_the_key(declare: Declare) -> None:
    """An action may set other options than its own."""

    def add_arguments(parser: CommandParser) -> None:
        parser.add_argument("--window", action=Window)
        parser.set_defaults(start=None)

    declare(add_arguments)

    assert len({key("--window=1-2"), key("--window=1-3"), key("--window=2-3"), key()}) == 4


def test_option_without_a_default_is_in_the_key(declare: Declare) -> None:
    """An option with default=SUPPRESS is absent unless it is given; `lock_args` may name it."""
    declare(lambda parser: parser.add_argument("--x", default=argparse.SUPPRESS))

    assert key("--x=1") != key("--x=2") != key()


def test_lock_args_narrow_the_key(declare: Declare, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the options that differ from their default, those that lock_args names are in the key."""

    def add_arguments(parser: CommandParser) -> None:
        parser.add_argument("--shop", type=Source, default=uuid4())
        parser.add_argument("--day", default=argparse.SUPPRESS)
        parser.add_argument("--note", default=uuid4())

    declare(add_arguments)
    monkeypatch.setattr(echo.Command, "lock_args", ["shop", "day"], raising=False)

    assert key() == key("--note=x") == key("--note=y")
    assert len({key("--shop=1", "--note=x"), key("--shop=2"), key("--day=1"), key()}) == 4
    assert key("--shop=1") == key("--shop=1", "--note=x")


@pytest.mark.django_db
def test_values_of_call_command_are_in_the_key(declare: Declare, held_labels: list[str]) -> None:
    """`call_command()` passes values that no parser has read."""
    declare(lambda parser: (parser.add_argument("--n", default=uuid4()), parser.add_argument("--x", default=1)))

    call_command("echo", n=timedelta(1))
    call_command("echo", n=timedelta(2))
    call_command("echo", x=1)

    assert len(set(held_labels)) == 3


OPTIONS = ("alpha", "beta", "gamma")
starts = st.lists(st.tuples(st.sampled_from(OPTIONS), st.integers(0, 2)), max_size=4)


@pytest.mark.parametrize("convert", [int, str, Source, hours, set], ids=lambda convert: convert.__name__)
@given(one=starts, other=starts, data=st.data())
def test_two_starts_have_one_key_if_they_differ_from_defaults_alike(
    convert: Any, one: list[Any], other: list[Any], data: st.DataObject
) -> None:
    """Order, repetition and spelling do not matter, nor do options that are given as they are by default."""
    defaults = data.draw(st.fixed_dictionaries(dict.fromkeys(OPTIONS, st.integers(0, 2).map(str) | st.none())))

    class Command(echo.Command):
        def add_arguments(self, parser: CommandParser) -> None:
            for name, default in defaults.items():
                parser.add_argument(f"--{name}", type=convert, default=default)

    def identity(start: list[Any]) -> dict[str, str]:
        return {name: str(value) for name, value in dict(start).items() if str(value) != defaults[name]}

    def spelled(start: list[Any]) -> str:
        arguments = [
            data.draw(st.sampled_from([[f"--{name}={value}"], [f"--{name}", str(value)]])) for name, value in start
        ]
        return key(*itertools.chain(*arguments), job=Command())

    assert (spelled(one) == spelled(other)) == (identity(one) == identity(other))
