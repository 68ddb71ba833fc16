"""One value to text, and whether it came back as itself."""

from __future__ import annotations

import os
from argparse import Action, ArgumentParser
from collections.abc import Iterator, Mapping, Set
from datetime import date, time
from decimal import Decimal
from enum import Enum
from functools import cache
from pathlib import PurePath
from reprlib import repr as shortened
from typing import Any
from uuid import UUID

from django.utils.functional import Promise

from cloudrun_jobs.exceptions import InvalidArguments

PLAIN = (str, int, float, Decimal, date, time, UUID, PurePath)


def text_of(value: Any, action: Action) -> str:
    """Return the text that stands for `value` on the command line, or raise `InvalidArguments`."""
    plain = _plain(value, action)
    if isinstance(plain, Mapping | Set | bytes | bytearray | list | tuple) or plain is None:
        _refuse(action, value)
    if action.type is None and (isinstance(plain, bool) or not isinstance(plain, PLAIN)):
        _refuse(action, value)
    try:
        text = _spell(plain)
    except ValueError as error:  # A number of more digits than Python writes.
        raise InvalidArguments(f"{action.dest}: {error}.") from None
    _check_text(text, action)
    return text


def check_place(action: Action, given: Any, arrived: Any) -> None:
    """Raise `InvalidArguments` unless the texts of the value given are those that its argument would get."""
    expected, got = list(_texts(given, action)), list(_texts(arrived, action))
    if expected != got:
        raise InvalidArguments(
            f"{action.dest}: {shortened(given)} would arrive as {shortened(arrived)}.",
            hint="On the command line it cannot be told apart from the arguments beside it: pass those too.",
        )


def check_arrival(action: Action, given: Any, arrived: Any) -> None:
    """Raise `InvalidArguments` unless what was parsed equals what was given."""
    if not _arrives_as(given, arrived):
        raise InvalidArguments(
            f"{action.dest}: {shortened(given)} would arrive as {shortened(arrived)}.",
            hint="Leave it out, or pass None."
            if arrived is None or arrived == action.default
            else "Pass a value that the option's type= makes of its own text.",
        )


def _arrives_as(given: Any, arrived: Any) -> bool:
    """A text stands for whatever the option's type makes of it; an option of text takes anything as text."""
    if isinstance(given, list | tuple) and isinstance(arrived, list | tuple):
        return len(given) == len(arrived) and all(map(_arrives_as, given, arrived))
    if isinstance(given, Promise):
        given = str(given)
    if isinstance(given, Enum) and not isinstance(arrived, Enum):
        given = given.value
    if isinstance(arrived, str) and not isinstance(given, str):
        return bool(arrived == _spell(given))
    same_not_a_number = given != given and arrived != arrived
    return isinstance(given, str) or bool(given == arrived) or same_not_a_number


def _texts(value: Any, action: Action) -> Iterator[str]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item, action)
    elif value is not None:
        yield _spell(_plain(value, action))


def _plain(value: Any, action: Action) -> Any:
    """Take lazy text and members of enumerations for what they stand for."""
    if isinstance(value, Promise):
        return str(value)
    if isinstance(value, Enum):
        return value.name if _is_read_as(value, value.name, action) else value.value
    return value


def _is_read_as(value: Any, text: str, action: Action) -> bool:
    try:
        return callable(action.type) and bool(action.type(text) == value)
    except Exception:  # noqa: BLE001  (types raise what they like for text they do not take)
        return False


def _spell(value: Any) -> str:
    """Write a value as its type does, whatever a subclass prints: NumPy's 1.5 calls itself np.float64(1.5)."""
    if isinstance(value, bool):
        return str(value)
    for kind in (str, int, float):
        if issubclass(type(value), kind):  # Not isinstance: a lazy object claims to be what it will become.
            return str.__str__(value) if kind is str else kind.__repr__(value)
    if isinstance(value, date | time):
        return value.isoformat()
    return os.fspath(value) if isinstance(value, PurePath) else str(value)


def _check_text(text: str, action: Action) -> None:
    if "\0" in text:
        raise InvalidArguments(f"{action.dest}: a process cannot be given NUL.", hint="Take it out.")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidArguments(f"{action.dest}: lone surrogates have no UTF-8.", hint="Decode the text anew.")
    if text == "--" and (not action.option_strings or _loses_double_dash()):
        hint = "Spell it differently."
        raise InvalidArguments(f"{action.dest}: this Python's argparse loses the value '--'.", hint=hint)


@cache
def _loses_double_dash() -> bool:
    """Try it: CPython 3.12.1 turns `--option=--` into []. As a positional, no version keeps it everywhere."""
    parser = ArgumentParser()
    parser.add_argument("--option")
    return bool(parser.parse_args(["--option=--"]).option != "--")


def _refuse(action: Action, value: Any) -> None:
    hints = {
        dict: "Pass JSON text, or the parts as options of their own.",
        bool: "Declare the option with action='store_true' or BooleanOptionalAction.",
        bytes: "Pass text.",
        list: "This option takes one value; action='append' takes several.",
    }
    hint = next((hint for kind, hint in hints.items() if isinstance(value, kind)), "Pass its key or its text.")
    raise InvalidArguments(
        f"{action.dest}: expected one text, number or date, got {type(value).__name__} {shortened(value)}.",
        hint=hint,
    )
