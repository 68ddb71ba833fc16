"""Read the fields of log entries: paths of names, and the values that they lead to.

A value is a text, a number, a boolean, None for a null of JSON, an `Instant`, a `Length` or an `Enumerated`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import Any, NamedTuple

from google.cloud.logging_v2.types import LogEntry
from google.protobuf import symbol_database
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from cloudrun_jobs.emulator.json_reader import is_map, is_repeated
from cloudrun_jobs.emulator.logs.query import MalformedFilter

# The raw message: there are many thousands of entries, and proto-plus takes ten times as long for each.
Entry: Any = LogEntry.pb()
# Fields of entries that the client library does not have, and that no entry of the emulator has.
UNSET = {"apphub", "apphubdestination", "apphubsource", "errorgroups", "metadata", "otel"}


class Instant(NamedTuple):
    """A point in time."""

    seconds: int
    nanos: int


class Length(NamedTuple):
    """A duration."""

    nanos: int


class Enumerated(NamedTuple):
    """A value of an enumeration."""

    number: int
    type: EnumDescriptor


Values = Callable[[Any], Iterable[Any]]


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a message: its values are those of all elements, if it is repeated.

    A missing field has no values. A field that the type of the message declares has its default value instead.
    """

    type: Any  # The type of the values; `object` if each value has its own; None for a message.
    values: Values
    is_present: Callable[[Any], bool]


class UnknownField(MalformedFilter):
    """The type of the message has no such field."""


def field_of_entry(path: Sequence[str]) -> Field:
    """Return the field at a path, in which ``insertId`` and ``insert_id`` are the same name.

    Raises:
        UnknownField: log entries have no such field.
    """
    return _resolve(Entry.DESCRIPTOR, tuple(path))


def scalars(message: Any) -> list[Any]:
    """Return the values of all fields of a message, at any depth."""
    reader = READERS.get(message.DESCRIPTOR.full_name)
    if reader is not None:
        return list(reader(message))
    found: list[Any] = []
    for field, value in message.ListFields():
        if type(value) is str:
            found.append(value)
        else:
            found += _reader(field)(value)
    return found


@cache
def _resolve(message: Descriptor, path: tuple[str, ...]) -> Field:
    name, *rest = path
    field = _fields(message).get(_normalised(name))
    if field is None:
        if message is Entry.DESCRIPTOR and _normalised(name) in UNSET:
            return MISSING
        raise UnknownField(f"Field not found: '{name}'.")
    if is_map(field):
        return _in_map(field, rest)
    if rest and field.message_type is None:
        raise UnknownField(f"Field not found: '{'.'.join(path)}'; '{name}' has no fields. Quote keys with dots.")
    return _inside(field, tuple(rest)) if rest else _whole(field)


def _whole(field: FieldDescriptor) -> Field:
    """The field itself, without a path into it."""
    get = attrgetter(field.name)
    kind = None if field.message_type is None else field.message_type.full_name
    value_type = TYPES.get(kind) if kind else _scalar_type(field)
    read = _reader(field)
    return Field(value_type, lambda message: read(get(message)), _presence(field))


def _inside(field: FieldDescriptor, rest: tuple[str, ...]) -> Field:
    """A field of the message, or of the JSON, in a field."""
    get = attrgetter(field.name)
    kind = field.message_type.full_name
    if kind in JSON_TYPES:
        return Field(
            object,
            lambda message: (value for found in _json(get(message), rest) for value in _json_scalars(found)),
            lambda message: any(True for _ in _json(get(message), rest)),
        )
    if kind == "google.protobuf.Any":
        return Field(
            object,
            lambda message: _in_any(get(message), rest, lambda found, inner: found.values(inner), ()),
            lambda message: _in_any(get(message), rest, lambda found, inner: found.is_present(inner), False),
        )
    inner = _resolve(field.message_type, rest)
    if is_repeated(field):
        return Field(
            inner.type,
            lambda message: (value for each in get(message) for value in inner.values(each)),
            lambda message: any(map(inner.is_present, get(message))),
        )
    return Field(
        inner.type,
        lambda message: inner.values(get(message)),
        lambda message: message.HasField(field.name) and inner.is_present(get(message)),
    )


def _in_map(field: FieldDescriptor, rest: list[str]) -> Field:
    get = attrgetter(field.name)
    if not rest:
        read = _reader(field)
        return Field(None, lambda message: read(get(message)), lambda message: bool(get(message)))
    key, *deeper = rest
    if deeper:
        raise UnknownField(f"Field not found: '{'.'.join([field.json_name, *rest])}'. Quote keys with dots.")

    def values(message: Any) -> tuple[Any, ...]:
        found = get(message)
        return (found[key],) if key in found else ()

    return Field(str, values, lambda message: key in get(message))


@cache
def _reader(field: FieldDescriptor) -> Values:
    """Return a function that returns the values in the value of a field."""
    if is_map(field):
        return lambda value: [value[key] for key in value]  # Faster than its method `values`.
    read = _element_reader(field)
    if is_repeated(field):
        return lambda value: [each for element in value for each in read(element)]
    return read


def _element_reader(field: FieldDescriptor) -> Values:
    if field.message_type is not None:
        return READERS.get(field.message_type.full_name, scalars)
    if field.enum_type is not None:
        enumeration = field.enum_type
        return lambda number: (Enumerated(number, enumeration),)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda value: (value.decode("latin-1"),)
    return lambda value: (value,)


def _presence(field: FieldDescriptor) -> Callable[[Any], bool]:
    if field.has_presence:
        return lambda message: message.HasField(field.name)
    return lambda message: bool(getattr(message, field.name))


def _in_any(wrapper: Any, path: tuple[str, ...], read: Callable[[Field, Any], Any], missing: Any) -> Any:
    """Read a field of a message of any type; its name is the key ``@type``."""
    if path == ("@type",):
        return read(TYPE_URL, wrapper) if wrapper.type_url else missing
    inner = _unpacked(wrapper)
    try:
        return missing if inner is None else read(_resolve(inner.DESCRIPTOR, path), inner)
    except UnknownField:
        return missing


def _unpacked(wrapper: Any) -> Any:
    """Return the message in an Any; None if its type is unknown here."""
    try:
        message = symbol_database.Default().GetSymbol(wrapper.TypeName())()
    except KeyError:
        return None
    return message if wrapper.Unpack(message) else None


def _any_scalars(wrapper: Any) -> Iterator[Any]:
    if wrapper.type_url:
        yield wrapper.type_url
    inner = _unpacked(wrapper)
    if inner is not None:
        yield from scalars(inner)


def _json(value: Any, path: tuple[str, ...]) -> Iterator[Any]:
    """Yield the JSON values at a path; of a list on the way, those of each element."""
    kind = "struct_value" if hasattr(value, "fields") else value.WhichOneof("kind")
    if kind == "list_value":
        for element in value.list_value.values:
            yield from _json(element, path)
    elif not path:
        yield value
    elif kind == "struct_value":
        fields = value.fields if hasattr(value, "fields") else value.struct_value.fields
        if path[0] in fields:
            yield from _json(fields[path[0]], path[1:])


def _json_scalars(value: Any) -> Iterator[Any]:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        # Only ":" compares an object, with each value in it.
        yield Whole(value.struct_value)
    elif kind == "null_value":
        yield None
    elif kind is not None:
        yield getattr(value, kind)


def _struct_scalars(struct: Any) -> Iterator[Any]:
    fields = struct.fields
    return (scalar for key in fields for scalar in _value_scalars(fields[key]))


def _value_scalars(value: Any) -> Iterator[Any]:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        yield from _struct_scalars(value.struct_value)
    elif kind == "list_value":
        for element in value.list_value.values:
            yield from _value_scalars(element)
    else:
        yield from _json_scalars(value)


class Whole(NamedTuple):
    """An object of JSON."""

    message: Any


@cache
def _fields(message: Descriptor) -> dict[str, FieldDescriptor]:
    return {_normalised(field.name): field for field in message.fields}


def _normalised(name: str) -> str:
    return name.replace("_", "").lower()


def _scalar_type(field: FieldDescriptor) -> Any:
    if field.enum_type is not None:
        return field.enum_type
    return {
        FieldDescriptor.CPPTYPE_STRING: str,
        FieldDescriptor.CPPTYPE_BOOL: bool,
    }.get(field.cpp_type, float)


JSON_TYPES = {"google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue"}
TYPES = {"google.protobuf.Timestamp": Instant, "google.protobuf.Duration": Length}
READERS: dict[str, Values] = {
    "google.protobuf.Timestamp": lambda message: (Instant(message.seconds, message.nanos),),
    "google.protobuf.Duration": lambda message: (Length(message.seconds * 10**9 + message.nanos),),
    "google.protobuf.Struct": _struct_scalars,
    "google.protobuf.Value": _value_scalars,
    "google.protobuf.Any": _any_scalars,
}
MISSING = Field(object, lambda _: (), lambda _: False)
TYPE_URL = Field(str, lambda wrapper: (wrapper.type_url,), lambda wrapper: bool(wrapper.type_url))
