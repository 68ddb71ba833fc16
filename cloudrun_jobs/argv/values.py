"""One value to text, and whether it came back as itself."""

from __future__ import annotations

import os
from argparse import Action, ArgumentParser
from collections.abc import Mapping, Set
from datetime import date, time
from decimal import Decimal
from enum import Enum
from functools import cache
from pathlib import PurePath
from reprlib import repr as shortened
from typing import Any
from uuid import UUID

from ..exceptions import InvalidArguments

PLAIN = (str, int, float, Decimal, date, time, UUID, PurePath)


def text_of(value: Any, action: Action) -> str:
    """Return the text that stands for `value` on the command line, or raise `InvalidArguments`."""
    plain = value.value if isinstance(value, Enum) else value
    if isinstance(plain, Mapping | Set | bytes | bytearray | list | tuple) or plain is None:
        _refuse(action, value)
    if not _is_plain(plain) and action.type is None:
        _refuse(action, value)
    text = _spell(plain)
    _check_text(text, action)
    return text


def arrives_as(given: Any, arrived: Any) -> bool:
    """Say whether what was parsed is what was given.

    A text stands for whatever the option's type makes of it, and an option without a type takes anything as
    text.
    """
    if isinstance(given, list | tuple) and isinstance(arrived, list | tuple):
        return len(given) == len(arrived) and all(map(arrives_as, given, arrived))
    given = given.value if isinstance(given, Enum) and not isinstance(arrived, Enum) else given
    if isinstance(arrived, str):
        return bool(arrived == _spell(given))
    same_not_a_number = given != given and arrived != arrived
    return isinstance(given, str) or bool(given == arrived) or same_not_a_number


def _is_plain(value: Any) -> bool:
    return isinstance(value, PLAIN) and not isinstance(value, bool)


def _spell(value: Any) -> str:
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, float):
        return repr(value)
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
