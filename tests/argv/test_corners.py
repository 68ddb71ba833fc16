"""Corners of argparse in which a value could go astray, and values that are not what they seem."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management.base import CommandParser
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy

from cloudrun_jobs import InvalidArguments
from cloudrun_jobs.argv import parse, serialise
from tests.argv.parsers import make_parser, manage_parser


class Size(Enum):
    SMALL = 1


class Printed(float):
    def __repr__(self) -> str:
        return "np.float64(1.5)"


class Dressed(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "other"


def two_optional(parser: CommandParser) -> None:
    parser.add_argument("a", nargs="?")
    parser.add_argument("b", nargs="?", type=int)


def list_then_list(parser: CommandParser) -> None:
    parser.add_argument("a", nargs="+")
    parser.add_argument("b", nargs="*")


def overwritten(parser: CommandParser) -> None:
    parser.add_argument("--x", type=int)
    verbs = parser.add_subparsers(dest="verb")
    verbs.add_parser("add").set_defaults(x=5)


def same_dest(parser: CommandParser) -> None:
    parser.add_argument("a")
    parser.add_argument("a")


def hostile_verb(parser: CommandParser) -> None:
    parser.add_subparsers(dest="verb").add_parser("--settings=x")


def file_of_arguments(parser: CommandParser) -> None:
    parser.fromfile_prefix_chars = "@"
    parser.add_subparsers(dest="verb").add_parser("add").add_argument("word", type=len)


def open_list(parser: CommandParser) -> None:
    parser.add_argument("--many", nargs="*")
    parser.add_argument("--flag", action="store_true")
    parser.add_subparsers(dest="verb").add_parser("add")


def boolean(parser: CommandParser) -> None:
    parser.add_argument("--mail", action=argparse.BooleanOptionalAction)


def default_list(parser: CommandParser) -> None:
    parser.add_argument("words", nargs="*", default=["z"])


ASTRAY: list[tuple[Callable[[CommandParser], None], tuple[Any, ...], dict[str, Any], str]] = [
    (two_optional, (), {"b": "5"}, "b: '5' would arrive as None. The command line cannot separate it"),
    (two_optional, (), {"b": 5}, "b: 5 would arrive as None"),
    (list_then_list, (["a"], ["b"]), {}, "would arrive as ['a', 'b']"),
    (overwritten, ("add",), {"x": "7"}, "x: '7' would arrive as 5"),
    (same_dest, ("1", "2"), {}, "Two positionals are both called 'a'"),
    (hostile_verb, ("--settings=x",), {}, "The subcommand '--settings=x' would be read as an option."),
    (file_of_arguments, ("add", "@/etc/hostname"), {}, "as a file of arguments"),
    (open_list, ("add",), {"many": ["a", "b"]}, "many: would read the subcommand 'add' as one of its values."),
    (boolean, (), {"no_mail": True}, "Unknown option 'no_mail'. Did you mean 'mail'?"),
    (default_list, ([],), {}, "would arrive as ['z']. Leave it out, or pass None."),
]


@pytest.mark.parametrize(("declare", "args", "options", "message"), ASTRAY)
def test_value_for_another_argument_is_refused(
    declare: Callable[[CommandParser], None], args: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    """What argparse would give to another argument, or overwrite, never leaves the caller."""
    parser = make_parser()
    declare(parser)

    with pytest.raises(InvalidArguments) as refusal:
        serialise(parser, args, options)

    assert message in str(refusal.value)


@pytest.mark.parametrize("options", [{"flag": True, "many": ["a", "b"]}, {"many": ["a", "b"], "level": 3}])
def test_order_of_keywords_does_not_matter(options: dict[str, Any]) -> None:
    """An option that is bounded goes between a list and a subcommand, in whatever order they were given."""
    parser = make_parser()
    open_list(parser)
    parser.add_argument("--level", type=int)

    parsed = parse(parser, serialise(parser, ["add"], options))

    assert (parsed["verb"], parsed["many"]) == ("add", ["a", "b"])


def slug(text: str) -> str:
    return text.strip().lower().replace(" ", "-")


@pytest.mark.parametrize(
    ("kind", "value", "argument", "arrives"),
    [
        (str.lower, "ABC", "--opt=ABC", "abc"),
        (slug, " A b ", "--opt= A b ", "a-b"),
        (lambda text: Size[text], Size.SMALL, "--opt=SMALL", Size.SMALL),
        (lambda text: Size(int(text)), Size.SMALL, "--opt=1", Size.SMALL),
        (float, Printed(1.5), "--opt=1.5", 1.5),
        (None, Printed(1.5), "--opt=1.5", "1.5"),
        (None, Dressed("abc"), "--opt=abc", "abc"),
        (None, mark_safe("<b>"), "--opt=<b>", "<b>"),
        (None, gettext_lazy("Yes"), "--opt=Yes", "Yes"),
        (None, SimpleLazyObject(lambda: "lazy"), "--opt=lazy", "lazy"),
    ],
)
def test_converted_values_survive(kind: Any, value: Any, argument: str, arrives: Any) -> None:
    """Text that a type changes, enumerations by name or value, subclasses and lazy text survive."""
    parser = make_parser()
    parser.add_argument("--opt", type=kind)

    assert serialise(parser, [], {"opt": value}) == [argument]
    assert parse(parser, [argument])["opt"] == arrives


def recursive(text: str) -> Any:
    return recursive(text)


def invalid(text: str) -> Any:
    raise ValidationError("no")


@pytest.mark.parametrize(
    ("declared", "value", "message"),
    [
        ({"type": Decimal}, "X", "The command's parser raised InvalidOperation"),
        ({"type": recursive}, "X", "RecursionError"),
        ({"type": invalid}, "X", "ValidationError: ['no']"),
        pytest.param({}, 10**5000, "digits", id="too many digits"),
        ({"action": "count", "default": "2"}, 3, "TypeError"),
        ({"action": "append", "default": ("x",)}, ["x", "y"], "AttributeError"),
        ({"action": "append", "default": object()}, ["y"], "raised"),
    ],
)
def test_parser_exceptions_become_invalid_arguments(declared: dict[str, Any], value: Any, message: str) -> None:
    """The caller of delay() catches one exception, with the parser's as its cause."""
    parser = make_parser()
    parser.add_argument("--opt", **declared)

    with pytest.raises(InvalidArguments) as refusal:
        serialise(parser, [], {"opt": value})

    assert message in str(refusal.value)


def test_count_without_default_can_be_given() -> None:
    """An option that is absent unless given counts from zero."""
    parser = make_parser()
    parser.add_argument("--opt", action="count", default=argparse.SUPPRESS)

    assert parse(parser, serialise(parser, [], {"opt": 2}))["opt"] == 2


def test_custom_action_may_convert_its_text() -> None:
    """A custom Action gets its text, and may store any value."""

    class Pair(argparse.Action):
        def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
            name, _, value = values.partition("=")
            setattr(namespace, self.dest, {name: value})

    parser = make_parser()
    parser.add_argument("--opt", action=Pair)

    assert parse(parser, serialise(parser, [], {"opt": "a=--settings"}))["opt"] == {"a": "--settings"}


def test_manage_py_options_are_untouched() -> None:
    """The arguments of the corners above leave manage.py's own options alone."""
    parser = make_parser()
    open_list(parser)
    argv = serialise(parser, ["add"], {"many": ["a", "b"], "flag": True})

    assert manage_parser().parse_known_args(argv)[0].settings is None
