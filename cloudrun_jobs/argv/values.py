"""Convert one value to text, and compare it with what was parsed."""

from __future__ import annotations

import os
from argparse import Action, ArgumentParser
from collections.abc import Iterator, Mapping, Set
from datetime import date, time
from decimal import Decimal
from enum import Enum
from functools import cache
from pathlib import PurePath
from typing import Any
from uuid import UUID

from django.utils.functional import Promise

from cloudrun_jobs.argv.reading import REFERENCE_HINT
from cloudrun_jobs.argv.redaction import is_secret, shown
from cloudrun_jobs.argv.secret_ref import SecretRef
from cloudrun_jobs.exceptions import InvalidArguments

BOOLEAN_HINT = "Declare the option with action='store_true' or BooleanOptionalAction."
PLAIN = (str, int, float, Decimal, date, time, UUID, PurePath)


def text_of(value: Any, action: Action) -> str:
    """Return the text of `value` on the command line. Raises `InvalidArguments`."""
    if isinstance(value, SecretRef):
        if is_secret(action):
            return value.encode()
        message = f"{action.dest}: expected a plain value, got a SecretRef: the option is not in secret_options."
        raise InvalidArguments(message, hint="Add the option to secret_options, whose references are resolved.")
    plain = _plain(value, action)
    is_composite = isinstance(plain, Mapping | Set | bytes | bytearray | list | tuple)
    is_plain = isinstance(plain, PLAIN) and not isinstance(plain, bool)
    if plain is None or is_composite or (action.type is None and not is_plain):
        raise _not_expressible(action, value)
    try:
        text = _format(plain)
    except ValueError as error:  # A number with more digits than Python formats.
        raise InvalidArguments(f"{action.dest}: {error}.") from None
    _check_text(text, action)
    return text


def check_place(action: Action, given: Any, arrived: Any) -> None:
    """Raise `InvalidArguments` unless the argument would get the strings of the value."""
    expected, got = list(_texts(given, action)), list(_texts(arrived, action))
    if expected != got:
        raise InvalidArguments(
            f"{action.dest}: {shown(action, given)} would arrive as {shown(action, arrived)}.",
            hint="The command line cannot separate it from the arguments next to it: pass those too.",
        )


def check_arrival(action: Action, given: Any, arrived: Any) -> None:
    """Raise `InvalidArguments` unless what was parsed equals what was given."""
    if not _arrives_as(given, arrived):
        hint = "Pass a value that the option's type= returns for its own text."
        if action.type is bool:
            hint = f"type=bool returns True for every text but the empty one. {BOOLEAN_HINT}"
        elif arrived is None or arrived == action.default:
            hint = "Leave it out, or pass None."
        message = f"{action.dest}: {shown(action, given)} would arrive as {shown(action, arrived)}."
        raise InvalidArguments(message, hint=hint)


def _arrives_as(given: Any, arrived: Any) -> bool:
    """Return True if the values are equal; a string equals whatever the option's type returns for it."""
    if isinstance(given, list | tuple) and isinstance(arrived, list | tuple):
        return len(given) == len(arrived) and all(map(_arrives_as, given, arrived))
    if isinstance(given, Promise):
        given = str(given)
    if isinstance(given, Enum) and not isinstance(arrived, Enum):
        given = given.value
    if isinstance(arrived, str) and not isinstance(given, str):
        return bool(arrived == _format(given))
    same_not_a_number = given != given and arrived != arrived
    return isinstance(given, str) or bool(given == arrived) or same_not_a_number


def _texts(value: Any, action: Action) -> Iterator[str]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item, action)
    elif value is not None:
        yield _format(_plain(value, action))


def _plain(value: Any, action: Action) -> Any:
    """Return a lazy string as a string, and the name or value of an enumeration's member."""
    if isinstance(value, Promise):
        return str(value)
    if isinstance(value, Enum):
        return value.name if _parses_to(value, value.name, action) else value.value
    return value


def _parses_to(value: Any, text: str, action: Action) -> bool:
    try:
        return callable(action.type) and bool(action.type(text) == value)
    except Exception:  # noqa: BLE001  (a type may raise anything for text that it rejects)
        return False


def _format(value: Any) -> str:
    """Format a value as its built-in type does: the repr of NumPy's 1.5 is np.float64(1.5)."""
    if isinstance(value, bool):
        return str(value)
    for kind in (str, int, float):
        if issubclass(type(value), kind):  # Not isinstance(), which a lazy object pretends.
            return str.__str__(value) if kind is str else kind.__repr__(value)
    if isinstance(value, date | time):
        return value.isoformat()
    return os.fspath(value) if isinstance(value, PurePath) else str(value)


def _check_text(text: str, action: Action) -> None:
    if "\0" in text:
        raise InvalidArguments(f"{action.dest}: command-line arguments cannot contain NUL.", hint="Remove it.")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidArguments(f"{action.dest}: UTF-8 cannot encode lone surrogates.", hint="Remove them.")
    if text == "--" and (not action.option_strings or loses_double_dash()):
        hint = "Use another value."
        raise InvalidArguments(f"{action.dest}: this Python's argparse loses the value '--'.", hint=hint)


@cache
def loses_double_dash() -> bool:
    """Return True on Pythons like 3.12.1, which parse `--option=--` to []. All of them lose it as a positional."""
    parser = ArgumentParser()
    parser.add_argument("--option")
    return bool(parser.parse_args(["--option=--"]).option != "--")


def _not_expressible(action: Action, value: Any) -> InvalidArguments:
    if is_secret(action):
        message = f"{action.dest}: expected a SecretRef, got {type(value).__name__} {shown(action, value)}."
        return InvalidArguments(message, hint=REFERENCE_HINT)
    hints = {
        dict: "Pass a JSON string, or each part as an option.",
        bool: BOOLEAN_HINT,
        bytes: "Pass a string.",
        list: "This option takes one value; action='append' takes several.",
    }
    hint = next((hint for kind, hint in hints.items() if isinstance(value, kind)), "Pass its key, or a string.")
    message = (
        f"{action.dest}: expected a string, number or date, got {type(value).__name__} {shown(action, value)}."
    )
    return InvalidArguments(message, hint=hint)
