"""Update masks: replace or clear the fields of a resource that a mask names.

https://google.aip.dev/134 and https://google.aip.dev/161
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cloudrun_jobs.emulator.errors import ServiceError, invalid
from cloudrun_jobs.emulator.json_reader import is_map, is_repeated, snake_case, split_paths
from cloudrun_jobs.emulator.messages import extend, reduce

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

WHOLE = "*"
SEGMENT = re.compile(r"`([^`]+)`|([^`.]+)")


def updated(
    old: Any,
    given: Any,
    paths: Iterable[str],
    error: Callable[[str], ServiceError] = lambda path: invalid(f"Invalid update_mask: {path}."),
) -> Any:
    """Return the old resource with the fields of the mask from the given one; all if the mask is empty or ``*``.

    A field that the given resource lacks is cleared. `error` makes the error about a path without a field.
    """
    masked = list(paths)
    if not masked or masked == [WHOLE]:
        return reduce(extend(given), type(old))
    source, target = extend(given), extend(old)
    for path in masked:
        segments = _segments(path)
        if not _is_path(segments, target.DESCRIPTOR):
            raise error(path)
        _replace(source, target, segments)
    return reduce(target, type(old))


def updated_json(
    old: dict[str, Any], given: Mapping[str, Any], mask: str, fields: Iterable[str]
) -> dict[str, Any]:
    """Return an old JSON resource with the fields of the mask, or of the given one if the mask is empty.

    `fields` are those that an update may change.
    """
    known = {snake_case(name): name for name in fields}
    paths = list(map(snake_case, split_paths(mask)))
    unknown = [path for path in paths if path not in known and path != WHOLE]
    if unknown:
        raise invalid(f"Invalid update_mask: {', '.join(unknown)}.")
    if paths:
        changed = {name for path, name in known.items() if path in paths or WHOLE in paths}
    else:
        changed = set(known.values()) & given.keys()
    kept = {name: value for name, value in old.items() if name not in changed}
    return {**kept, **{name: given[name] for name in changed if given.get(name) is not None}}


def _segments(path: str) -> list[str]:
    """Split a path at its dots, but not within backticks, which quote the key of a map."""
    found = list(SEGMENT.finditer(path))
    if ".".join(match[0] for match in found) != path:
        return []
    return [match[1] or match[2] for match in found]


def _is_path(segments: Sequence[str], descriptor: Any) -> bool:
    if not segments or descriptor is None:
        return False
    field = descriptor.fields_by_name.get(segments[0])
    if field is None or len(segments) == 1:
        return field is not None
    if is_map(field):
        return len(segments) == 2
    return not is_repeated(field) and _is_path(segments[1:], field.message_type)


def _replace(source: Any, target: Any, segments: Sequence[str]) -> None:
    name, *inner = segments
    field = target.DESCRIPTOR.fields_by_name[name]
    if not inner:
        target.ClearField(name)
        target.MergeFrom(_only(source, field))
    elif is_map(field):
        _replace_entry(getattr(source, name), getattr(target, name), field, inner[0])
    elif source.HasField(name) or target.HasField(name):
        # Reading a missing message does not set it: its field is cleared, unless the resource gets a value.
        _replace(getattr(source, name), getattr(target, name), inner)


def _only(source: Any, field: Any) -> Any:
    """Return a message with one field of another."""
    result = type(source)()
    for each, value in source.ListFields():
        if each.name != field.name:
            continue
        if is_repeated(field) or field.message_type is not None:
            getattr(result, field.name).MergeFrom(value)
        else:
            setattr(result, field.name, value)
    return result


def _replace_entry(source: Any, target: Any, field: Any, key: str) -> None:
    target.pop(key, None)
    if key not in source:
        return
    if field.message_type.fields_by_name["value"].message_type is None:
        target[key] = source[key]
    else:
        target[key].CopyFrom(source[key])
