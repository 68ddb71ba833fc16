"""What cannot reach `run()` unchanged is refused by `delay()`, with the reason and the remedy."""

from __future__ import annotations

import argparse
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest
from django.core.management.base import BaseCommand

from cloudrun_jobs import InvalidArguments
from cloudrun_jobs.argv import check_limits, parse, serialise
from cloudrun_jobs.argv.limits import MAX_STRING_BYTES, MAX_TOTAL_BYTES
from tests.argv.parsers import make_parser


class Size(Enum):
    SMALL = "s"


REFUSED = [
    ({}, {"a": 1}, "got dict {'a': 1}. Pass a JSON string"),
    ({}, {1}, "got set"),
    ({}, object(), "Pass its key, or a string"),
    ({}, b"x", "got bytes b'x'. Pass a string"),
    ({}, True, "action='store_true'"),
    ({}, ["x"], "got list ['x']. This option takes one value"),
    ({}, "a\0b", "NUL"),
    ({}, "\ud800", "lone surrogates"),
    ({"default": "x"}, None, "expected 'x', got None. Leave it out to get the default."),
    ({"type": int}, 1.5, "invalid int value: '1.5'"),
    ({"type": int}, "one", "invalid int value: 'one'"),
    ({"type": date.fromisoformat}, datetime(2026, 1, 2, 3, tzinfo=UTC), "invalid"),
    ({"type": Decimal}, 0.1, "0.1 would arrive as Decimal('0.1')"),
    ({"choices": ["a", "b"]}, "c", "invalid choice: 'c'"),
    ({"nargs": "+"}, [], "expected at least one argument"),
    ({"nargs": "+"}, "abc", "expected a list or a tuple, got str 'abc'"),
    ({"nargs": 2}, ["a"], "expected 2 arguments"),
    ({"nargs": 2}, ["a", "-b"], "'-b' begins with '-' and would be read as an option"),
    ({"nargs": argparse.REMAINDER}, ["a"], "nargs=REMAINDER has no end"),
    ({"action": "append"}, "abc", "expected a list or a tuple"),
    ({"action": "append"}, [], "would arrive as None. Leave it out, or pass None."),
    ({"action": "append", "default": ["x"]}, ["y"], "expected a list that begins with ['x']"),
    ({"action": "append_const", "const": 1}, [2], "expected 1, got 2"),
    ({"action": "store_true"}, "yes", "expected False or True, got 'yes'"),
    ({"action": "store_true"}, 1, "expected False or True, got 1"),
    ({"action": "store_const", "const": 7}, 8, "expected 7 or None, got 8"),
    ({"action": argparse.BooleanOptionalAction}, "no", "expected"),
    ({"action": "count"}, -1, "expected a count from 0 up, got -1"),
    ({"action": "count"}, True, "expected a count from 0 up, got True"),
    ({"action": "count", "default": 2}, 1, "expected a count from 2 up, got 1"),
    ({"type": argparse.FileType()}, "x", "argparse.FileType opens the file here"),
]


@pytest.mark.filterwarnings("ignore:FileType is deprecated:PendingDeprecationWarning")
@pytest.mark.parametrize(("declared", "value", "message"), REFUSED)
def test_value_an_option_cannot_hold_is_refused(declared: dict[str, Any], value: Any, message: str) -> None:
    """A value that would not survive is refused, with the reason."""
    parser = make_parser()
    parser.add_argument("--opt", **declared)

    with pytest.raises(InvalidArguments) as refusal:
        serialise(parser, [], {"opt": value})

    assert message in str(refusal.value)


ACCEPTED = [
    ({}, 3, ["--opt=3"], "3"),
    ({}, date(2026, 1, 2), ["--opt=2026-01-02"], "2026-01-02"),
    ({}, Size.SMALL, ["--opt=s"], "s"),
    ({"type": Size}, Size.SMALL, ["--opt=s"], Size.SMALL),
    ({"type": date.fromisoformat}, "2026-01-02", ["--opt=2026-01-02"], date(2026, 1, 2)),
    ({"nargs": 2, "type": float}, [-5, 1.5], ["--opt", "-5", "1.5"], [-5.0, 1.5]),
    ({"action": "store_true"}, False, [], False),
    ({"action": "count"}, 3, ["--opt", "--opt", "--opt"], 3),
    ({"action": "append"}, ("-a", "b"), ["--opt=-a", "--opt=b"], ["-a", "b"]),
    ({}, None, [], None),
]


@pytest.mark.parametrize(("declared", "value", "argv", "arrives"), ACCEPTED)
def test_arguments_read_as_if_typed(declared: dict[str, Any], value: Any, argv: list[str], arrives: Any) -> None:
    """The argument for a value reads as on the command line, and parses to what run() should see."""
    parser = make_parser()
    parser.add_argument("--opt", **declared)

    assert serialise(parser, [], {"opt": value}) == argv
    assert parse(parser, argv)["opt"] == arrives


def test_misspelt_option_suggests_the_near_one() -> None:
    """An undeclared option is refused, with a suggestion."""
    parser = make_parser()
    parser.add_argument("--partner")

    with pytest.raises(InvalidArguments, match=r"Unknown option 'partnr'\. Did you mean 'partner'\?"):
        serialise(parser, [], {"partnr": 1})


@pytest.mark.parametrize("name", ["settings", "pythonpath"])
def test_options_of_manage_py_are_refused(name: str) -> None:
    """`--settings` and `--pythonpath` cannot be chosen by the caller of delay()."""
    with pytest.raises(InvalidArguments, match=r"is an option of manage\.py"):
        serialise(make_parser(), [], {name: "evil"})


def test_subcommand_cannot_redeclare_an_option_of_manage_py() -> None:
    """manage.py would take `--settings` for itself even if a subcommand declares it."""
    parser = make_parser()
    parser.add_subparsers(dest="verb").add_parser("add").add_argument("--settings")

    with pytest.raises(InvalidArguments, match=r"is an option of manage\.py"):
        serialise(parser, ["add"], {"settings": "evil"})


def test_option_strings_are_keywords() -> None:
    """An option with a dest of its own can be given by either name, as with call_command."""
    parser = make_parser()
    parser.add_argument("--since-day", dest="start")

    assert serialise(parser, [], {"since_day": "x"}) == serialise(parser, [], {"start": "x"}) == ["--since-day=x"]


def test_command_without_positionals_takes_none() -> None:
    """The hint says to pass options by name."""
    parser = make_parser()
    parser.add_argument("--partner")

    with pytest.raises(
        InvalidArguments, match=r"Expected no positional arguments, got 1\. Pass options by name\."
    ):
        serialise(parser, [7], {})


def test_suggestions_list_the_commands_own_options() -> None:
    """The options of every command are left out."""
    parser = BaseCommand().create_parser("manage.py", "x")
    parser.add_argument("--partner")

    with pytest.raises(InvalidArguments, match=r"Unknown option 'zzz'\. Known: partner\."):
        serialise(parser, [], {"zzz": 1})


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        (["a"], {"word": "b"}, "Got 'word' by position and by name"),
        ([], {"word": "a", "start": "x", "since": "y"}, "Got 'start' twice"),
        (["a", "b", "c"], {}, "Expected at most 1 positional argument, got 3"),
        ([], {}, "the following arguments are required: word"),
        (["a"], {"one": 1, "two": 2}, "not allowed with argument"),
        ([["a"]], {}, "This option takes one value"),
    ],
)
def test_call_that_does_not_fit_is_refused(args: list[Any], options: dict[str, Any], message: str) -> None:
    """Surplus, missing, doubled and mutually exclusive arguments are found before the dispatch."""
    parser = make_parser()
    parser.add_argument("word")
    parser.add_argument("--since", dest="start")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--one")
    group.add_argument("--two")

    with pytest.raises(InvalidArguments) as refusal:
        serialise(parser, args, options)

    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["ad"], "'ad' is not a subcommand. Did you mean 'add'?"),
        (["add", "-x"], "'-x' begins with '-'"),
    ],
)
def test_subcommand_that_does_not_fit_is_refused(args: list[str], message: str) -> None:
    """An undeclared subcommand, or a value before one that would be read as an option, is refused."""
    parser = make_parser()
    if len(args) > 1:
        parser.add_argument("word")
        args.reverse()
    parser.add_subparsers(dest="verb").add_parser("add")

    with pytest.raises(InvalidArguments) as refusal:
        serialise(parser, args, {})

    assert message in str(refusal.value)


def test_subcommand_can_be_named_as_an_option() -> None:
    """The dest of the subcommands takes the name of one."""
    parser = make_parser()
    parser.add_subparsers(dest="verb").add_parser("add").add_argument("--note")

    assert serialise(parser, [], {"verb": "add", "note": "-n"}) == ["add", "--note=-n"]


def test_other_prefix_characters_and_actions_that_share_a_dest() -> None:
    """`+x` options and several constants for one dest are written with the option of the value."""
    parser = make_parser(prefix_chars="-+")
    parser.add_argument("+x", dest="opt")
    parser.add_argument("--fast", dest="speed", action="store_const", const=1)
    parser.add_argument("--slow", dest="speed", action="store_const", const=2)

    assert serialise(parser, [], {"opt": "+y", "speed": 2}) == ["+x=+y", "--slow"]


def test_value_that_would_be_read_as_a_file_of_arguments_is_refused(tmp_path: Any) -> None:
    """With fromfile_prefix_chars a value like '@name' would be replaced by what the file holds."""
    parser = make_parser(fromfile_prefix_chars="@")
    parser.add_argument("word")

    with pytest.raises(InvalidArguments, match="as a file of arguments"):
        serialise(parser, ["@/etc/passwd"], {})


def test_parser_that_exits_raises_instead() -> None:
    """An action that ends the process does not end the caller of delay()."""

    class Leave(argparse.Action):
        def __call__(self, parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> None:
            parser.exit(3)

    parser = make_parser()
    parser.add_argument("--opt", action=Leave)

    with pytest.raises(InvalidArguments, match="ended the process"):
        serialise(parser, [], {"opt": "x"})


@pytest.mark.parametrize(
    ("argv", "environment", "message"),
    [
        (["x"] * 1001, {}, "at most 1000 arguments, got 1001"),
        (["x" * (MAX_STRING_BYTES + 1)], {}, f"got one of {MAX_STRING_BYTES + 1}"),
        (["é" * (MAX_STRING_BYTES // 2 + 1)], {}, "bytes"),
        (["x" * 100_000] * 11, {}, f"at most {MAX_TOTAL_BYTES} bytes, got 1100099"),
        (["x" * 100_000] * 5, {f"V{n}": "y" * 32_768 for n in range(32)}, f"at most {MAX_TOTAL_BYTES} bytes"),
    ],
)
def test_arguments_beyond_the_limits_are_refused(
    argv: list[str], environment: dict[str, str], message: str
) -> None:
    """The limits of Cloud Run and of execve are met before anything is sent."""
    with pytest.raises(InvalidArguments) as refusal:
        check_limits(argv, environment)

    assert message in str(refusal.value)


def test_arguments_up_to_the_limit_are_accepted() -> None:
    """The limit is on what the process is given: each text with its closing NUL and its pointer."""
    assert MAX_TOTAL_BYTES == 2**20
    check_limits(["x" * (2**16 - 9)] * 16, {})
    with pytest.raises(InvalidArguments, match=f"got {MAX_TOTAL_BYTES + 1}"):
        check_limits([*["x" * (2**16 - 9)] * 15, "x" * (2**16 - 8)], {})
