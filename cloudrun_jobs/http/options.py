"""Read and describe the JSON values of a command's options, as the command's own parser declares them."""

from __future__ import annotations

import json
import math
import re
from argparse import (
    ONE_OR_MORE,
    OPTIONAL,
    REMAINDER,
    SUPPRESS,
    ZERO_OR_MORE,
    Action,
    BooleanOptionalAction,
    _AppendAction,
    _CountAction,
    _ExtendAction,
)
from collections.abc import Iterable, Sequence, Sized
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from cloudrun_jobs.argv.values import loses_double_dash

# Texts without NUL. argparse loses some values "--", and ends some lists at a dash.
NO_NUL = r"^[^\u0000]*$"
WITHOUT_DOUBLE_DASH = r"^(?!--$)[^\u0000]*$"
WITHOUT_DASH = r"^(?!-)[^\u0000]*$"
INTEGER = r"[+-]?[0-9]{1,4000}"  # Python rejects integers of more than 4300 digits.
NUMBER = r"[+-]?[0-9]{1,300}(\.[0-9]{1,300})?"

MAX_CHOICES = 200  # More are not listed, as those of a range.

# By the type of an argument: pairs, because a type need not be hashable.
NUMBERS = ((int, INTEGER), (float, NUMBER), (Decimal, NUMBER))
FORMATS = (
    (date.fromisoformat, "date"),
    (datetime.fromisoformat, "date-time"),
    (time.fromisoformat, "time"),
    (UUID, "uuid"),
)


def read_option(action: Action, value: Any) -> Any:
    """Return the value of an option for the command's parser. Raises `ValueError` for a value of another type.

    The parser itself rejects the values that have the right type.
    """
    is_list = isinstance(action, _AppendAction) or action.nargs not in (None, OPTIONAL)
    if is_list and isinstance(value, list):
        return [_read_item(action, item) for item in value]
    return _read_item(action, value)


def _read_item(action: Action, value: Any) -> Any:
    if action.type is json.loads:
        return json.dumps(value)
    pattern = of_type(NUMBERS, action)
    if pattern is None or value is None:
        return value
    if isinstance(value, list) and isinstance(action, _AppendAction) and action.nargs is not None:
        return [_read_item(action, item) for item in value]
    if isinstance(value, float) and action.type is int and value.is_integer():
        return int(value)  # JSON does not distinguish 7.0 from 7.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_text = isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII)
    if not is_number and not is_text:
        raise ValueError(f"Expected {'an integer' if action.type is int else 'a number'}, got {value!r:.100}")
    return value


def is_required(action: Action) -> bool:
    """Return True if the parser rejects arguments without it. argparse marks positionals of any number, too."""
    return action.required and action.nargs not in (ZERO_OR_MORE, REMAINDER)


def option_schema(actions: Sequence[Action]) -> dict[str, Any]:
    """Return the JSON schema of an option's values, given the arguments that set it."""
    schemas = [_argument_schema(action) for action in actions]
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _argument_schema(action: Action) -> dict[str, Any]:
    schema = _schema(action)
    if action.help and action.help != SUPPRESS and "%(" not in action.help:
        schema["description"] = action.help.replace("%%", "%")
    if _is_json(action.default) and action.default is not None:
        schema["default"] = action.default
    return schema


def _schema(action: Action) -> dict[str, Any]:
    if isinstance(action, BooleanOptionalAction):
        return _nullable(action, {"type": "boolean"})
    if isinstance(action, _CountAction):
        return {"type": "integer", "minimum": action.default or 0, "maximum": 100}
    if action.nargs == 0:
        values = [action.const, action.default]
        is_flag = {type(value) for value in values} == {bool}
        if is_flag:
            return {"type": "boolean"}
        return {"enum": [value for value in values if _is_json(value)]}
    item = _item(action)
    if isinstance(action, _ExtendAction):
        return _nullable(action, {"type": "array", "items": item, "minItems": 1})
    if isinstance(action, _AppendAction):
        items = item if action.nargs is None else _array(action, item)
        return _nullable(action, {"type": "array", "items": items, "minItems": 1})
    if action.nargs in (None, OPTIONAL):
        return _nullable(action, item)
    return _nullable(action, _array(action, item))


def _array(action: Action, item: dict[str, Any]) -> dict[str, Any]:
    sizes = {"minItems": action.nargs, "maxItems": action.nargs} if isinstance(action.nargs, int) else {}
    sizes |= {"minItems": 1} if action.nargs == ONE_OR_MORE else {}
    return {"type": "array", "items": item, **sizes}


def _item(action: Action) -> dict[str, Any]:
    if action.type is json.loads:
        return {}
    if _has_few_choices(action):
        return {"enum": list(action.choices or ())}
    if digits := of_type(NUMBERS, action):
        number = {"type": "integer" if action.type is int else "number"}
        return {"anyOf": [number, {"type": "string", "pattern": f"^{digits}$"}]}
    if name := of_type(FORMATS, action):
        return {"type": "string", "format": name}
    is_open_list = action.option_strings and action.nargs in (ZERO_OR_MORE, ONE_OR_MORE)
    takes_any = action.option_strings and not loses_double_dash()
    pattern = WITHOUT_DASH if is_open_list else NO_NUL if takes_any else WITHOUT_DOUBLE_DASH
    text = {"type": "string", "pattern": pattern}
    if action.type is None or action.type is str:
        return {"anyOf": [text, {"type": "number", "minimum": 0} if is_open_list else {"type": "number"}]}
    return text


def _has_few_choices(action: Action) -> bool:
    choices = action.choices
    return isinstance(choices, Sized) and len(choices) <= MAX_CHOICES and all(map(_is_json, choices))


def _nullable(action: Action, schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema, which accepts null for an optional option without a default: null omits the option."""
    always_list = action.nargs == ZERO_OR_MORE and not action.option_strings
    if always_list or is_required(action) or action.default not in (None, SUPPRESS) or not schema:
        return schema
    return {"anyOf": [*(schema.get("anyOf") or [schema]), {"type": "null"}]}


def _is_json(value: Any) -> bool:
    is_finite = not isinstance(value, float) or math.isfinite(value)
    return is_finite and (value is None or isinstance(value, str | int | float | bool))


def of_type(values: Iterable[tuple[Any, str]], action: Action) -> str | None:
    """Return what the pairs have for the type of the argument."""
    return next((value for kind, value in values if kind == action.type), None)
