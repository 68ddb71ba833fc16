"""Reject values that protobuf encodes and JSON cannot: times out of range, NaN and infinities."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from cloudrun_jobs.emulator.json_reader import violation_error

if TYPE_CHECKING:
    from collections.abc import Iterator

# The years 1 to 9999, and as many in either direction.
MIN_TIMESTAMP_SECONDS, MAX_TIMESTAMP_SECONDS = -62_135_596_800, 253_402_300_799
MAX_DURATION_SECONDS = 315_576_000_000
NANOS = 10**9


def check(message: Any) -> None:
    """Raise INVALID_ARGUMENT for a protobuf message with such a value, at any depth."""
    violations = list(_violations(message, ""))
    if violations:
        raise violation_error(violations)


def _violations(message: Any, at: str) -> Iterator[tuple[str, str]]:
    kind = message.DESCRIPTOR.full_name
    if kind in RANGES:
        if not RANGES[kind](message):
            text = f"{message.seconds} seconds, {message.nanos} nanos"
            yield at, f"Invalid value at '{at}' (type.googleapis.com/{kind}), {text}"
        return
    for field, value in message.ListFields():
        path = f"{at}.{field.name}" if at else field.name
        for item in _items(field, value):
            if isinstance(item, float) and not math.isfinite(item):
                yield path, f"Invalid value at '{path}' (TYPE_DOUBLE), {item}"
            elif hasattr(item, "DESCRIPTOR"):
                yield from _violations(item, path)


def _items(field: Any, value: Any) -> Iterator[Any]:
    """Yield the values of a field: of a list, of a map, or the only one."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        yield from value.values()
    elif hasattr(value, "append"):
        yield from value
    else:
        yield value


def _is_timestamp(message: Any) -> bool:
    return bool(MIN_TIMESTAMP_SECONDS <= message.seconds <= MAX_TIMESTAMP_SECONDS and 0 <= message.nanos < NANOS)


def _is_duration(message: Any) -> bool:
    is_in_range = abs(message.seconds) <= MAX_DURATION_SECONDS and abs(message.nanos) < NANOS
    return bool(is_in_range and message.seconds * message.nanos >= 0)


RANGES = {"google.protobuf.Timestamp": _is_timestamp, "google.protobuf.Duration": _is_duration}
