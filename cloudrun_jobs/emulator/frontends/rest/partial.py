"""Partial responses: the parameter ``fields`` selects fields of a response.

https://developers.google.com/workspace/drive/api/guides/fields-parameter has the syntax.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeAlias

from cloudrun_jobs.emulator.errors import ServiceError
from cloudrun_jobs.emulator.json_reader import FREE_FORM, MAX_DEPTH, STRUCT, find_field, is_map, violation_error

if TYPE_CHECKING:
    from collections.abc import Iterator

# The selected fields by name; a field without fields of its own is selected whole.
Selection: TypeAlias = "dict[str, Selection]"
TOKEN = re.compile(r"[^,()/.]+|[,()/.]")
NAME = re.compile(r"[^,()/.]+")
ANY_FIELD = "*"


def parse(text: str) -> Selection:
    """Parse a selection: ``name,template/template(timeout,containers.image)``."""
    tokens = [token.strip() for token in TOKEN.findall(text)]
    selection = _list(tokens, text, MAX_DEPTH)
    if tokens:
        raise _unmatched(text, text)
    return selection


def check(selection: Selection, descriptor: Any, text: str, at: str = "") -> None:
    """Raise INVALID_ARGUMENT for a selected field that a message lacks."""
    for name, inner in selection.items():
        field = find_field(descriptor, name)
        path = f"{at}.{name}" if at else name
        if name != ANY_FIELD and field is None:
            raise _unmatched(text, path)
        if field is not None and inner:
            _check_inner(inner, field, text, path)


def select(value: Any, selection: Selection) -> Any:
    """Return the selected fields of a JSON value; of a list, those of each element."""
    if isinstance(value, list):
        return [select(each, selection) for each in value]
    if not isinstance(value, dict) or not selection:
        return value
    return {name: select(value[name], inner) for name, inner in _matching(value, selection)}


def _matching(value: dict[str, Any], selection: Selection) -> Iterator[tuple[str, Selection]]:
    names = {_plain(name): inner for name, inner in selection.items()}
    for name in value:
        if _plain(name) in names:
            yield name, names[_plain(name)]
        elif ANY_FIELD in names:
            yield name, names[ANY_FIELD]


def _plain(name: str) -> str:
    """Return a form that ``taskCount`` and ``task_count`` have in common."""
    return name.replace("_", "").lower()


def _list(tokens: list[str], text: str, depth: int) -> Selection:
    """Parse the selections up to a closing parenthesis; fields have at most `depth` levels below them."""
    selection: Selection = {}
    while True:
        _merge(selection, _path(tokens, text, depth))
        if not tokens or tokens[0] != ",":
            return selection
        tokens.pop(0)


def _path(tokens: list[str], text: str, depth: int) -> Selection:
    if not depth or not tokens or not NAME.fullmatch(tokens[0]):
        raise _unmatched(text, text)
    name = tokens.pop(0)
    if not tokens or tokens[0] in (",", ")"):
        return {name: {}}
    if tokens.pop(0) != "(":
        return {name: _path(tokens, text, depth - 1)}
    inner = _list(tokens, text, depth - 1)
    if not tokens or tokens.pop(0) != ")":
        raise _unmatched(text, text)
    return {name: inner}


def _merge(into: Selection, other: Selection) -> None:
    for name, inner in other.items():
        if name in into and (not inner or not into[name]):
            into[name] = {}  # Once selected whole, it stays whole.
        else:
            _merge(into.setdefault(name, {}), inner)


def _check_inner(selection: Selection, field: Any, text: str, path: str) -> None:
    message = field.message_type
    if message is None:
        raise _unmatched(text, f"{path}.{next(iter(selection))}")
    if not is_map(field) and message.full_name not in (*FREE_FORM, STRUCT):
        check(selection, message, text, path)


def _unmatched(text: str, path: str) -> ServiceError:
    description = f"Error expanding 'fields' parameter. Cannot find matching fields for path '{path}'."
    error = violation_error([(text, description)])
    return ServiceError(error.code, "Request contains an invalid argument.", error.details)
