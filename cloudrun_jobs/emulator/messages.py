"""Messages with all fields of the REST APIs, also those that the installed clients lack.

Such a message, called extended, reads and writes JSON. The client's message has the same bytes: there, the added
fields are unknown fields, which every copy keeps.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from google.cloud import run_v2
from google.cloud.logging_v2 import types as logging_types
from google.longrunning import operations_pb2
from google.protobuf import descriptor_pb2, json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2

from cloudrun_jobs.emulator import json_reader
from cloudrun_jobs.emulator.added_fields import LOGGING_FIELDS, PLAIN_FIELDS, RUN_ENUMS, RUN_FIELDS
from cloudrun_jobs.emulator.service import raw, raw_class

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloudrun_jobs.emulator.added_fields import Enums, Fields

Field = descriptor_pb2.FieldDescriptorProto
# The numbers of added fields in Google's own definition are unknown; these are free.
FIRST_NUMBER = 50_001
SCALARS = {
    "bool": Field.TYPE_BOOL,
    "float": Field.TYPE_FLOAT,
    "int32": Field.TYPE_INT32,
    "string": Field.TYPE_STRING,
}
PLAIN = "cloudrun_jobs.emulator"  # The package of requests without a client's class.
EXTENDED: dict[str, tuple[Any, Fields, Enums]] = {
    "google.cloud.run.v2": (run_v2, RUN_FIELDS, RUN_ENUMS),
    "google.logging.v2": (logging_types, LOGGING_FIELDS, {}),
    PLAIN: (None, PLAIN_FIELDS, {}),
}


def extended_class(message_class: Any) -> Any:
    """Return the extended class of a message class of a client, or its protobuf class if nothing is added."""
    message = raw_class(message_class)
    if message.DESCRIPTOR.file.package not in EXTENDED:
        return message
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(message.DESCRIPTOR.full_name))


def extend(message: Any) -> Any:
    """Return the extended message with the content of a client's message."""
    return extended_class(type(message)).FromString(raw(message).SerializeToString())


def reduce(extended: Any, message_class: Any) -> Any:
    """Return the client's message with the content of an extended message."""
    message = raw_class(message_class).FromString(extended.SerializeToString())
    return message_class.wrap(message) if hasattr(message_class, "wrap") else message


def to_json(message: Any, **options: Any) -> Any:
    """Return a client's message as JSON with all its fields."""
    # The messages in an operation are Cloud Run's, those in a log entry are of any kind.
    nested = pool() if isinstance(message, operations_pb2.Operation) else None
    return json_format.MessageToDict(extend(message), descriptor_pool=nested, **options)


def from_json(message_class: Any, content: dict[str, Any], at: str = "") -> Any:
    """Return a client's message from JSON, or raise INVALID_ARGUMENT. `at` is its path in the request."""
    message = extended_class(message_class)()
    json_reader.fill(message, content, at)
    return reduce(message, message_class)


def plain_request(content: dict[str, Any]) -> dict[str, Any]:
    """Check the request of a method without a message class. Fields of unknown names stay as they are."""
    message = message_factory.GetMessageClass(pool().FindMessageTypeByName(f"{PLAIN}.Request"))()
    known = {name for name in content if json_reader.find_field(message.DESCRIPTOR, name) is not None}
    json_reader.fill(message, {name: content[name] for name in known})
    others = {name: value for name, value in content.items() if name not in known}
    return {**others, **json_format.MessageToDict(message)}


def carry(source: Any, target: Any) -> None:
    """Copy the fields that both messages have and the target does not set, as from a template to its revision."""
    given, result = extend(source), extended_class(type(target))()
    present = {field.name for field, _ in raw(target).ListFields()}
    for field, value in given.ListFields():
        if field.name in result.DESCRIPTOR.fields_by_name and field.name not in present:
            _set(result, field, value)
    raw(target).MergeFromString(result.SerializeToString())


def _set(message: Any, field: Any, value: Any) -> None:
    if json_reader.is_repeated(field):
        getattr(message, field.name).MergeFrom(value)
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(value)
    else:
        setattr(message, field.name, value)


@cache
def pool() -> Any:
    """Return the descriptors of the extended messages and of every message in them."""
    result = DescriptorPool()
    _add_file(result, error_details_pb2.DESCRIPTOR, set())
    for package, (module, fields, enums) in EXTENDED.items():
        items = vars(module).values() if module is not None else ()
        files = {raw_class(item).DESCRIPTOR.file for item in items if _is_message(item, package)}
        result.AddSerializedFile(_merged(result, package, files, fields, enums).SerializeToString())
    return result


def _is_message(item: Any, package: str) -> bool:
    return hasattr(item, "pb") and item.pb().DESCRIPTOR.file.package == package


def _merged(result: Any, package: str, files: Iterable[Any], fields: Fields, enums: Enums) -> Any:
    """Return one file of all messages of a package, so that added fields need no import between its files."""
    merged = descriptor_pb2.FileDescriptorProto(name=f"{package}.extended.proto", package=package, syntax="proto3")
    added: set[str] = set()
    for file in sorted(files, key=lambda file: str(file.name)):
        for dependency in file.dependencies:
            if dependency.package != package:
                _add_file(result, dependency, added)
        content = descriptor_pb2.FileDescriptorProto.FromString(file.serialized_pb)
        merged.message_type.extend(content.message_type)
        merged.enum_type.extend(content.enum_type)
    merged.dependency.extend(sorted(added))
    for name, values in enums.items():
        _add_values(_nested(merged, name.split("."), "enum_type"), values)
    for name, types in fields.items():
        _add_fields(_nested(merged, name.split("."), "message_type"), types, package)
    return merged


def _add_file(result: Any, file: Any, added: set[str]) -> None:
    for dependency in file.dependencies:
        _add_file(result, dependency, added)
    added.add(file.name)
    result.AddSerializedFile(file.serialized_pb)


def _nested(parent: Any, path: list[str], kind: str) -> Any:
    """Return the message or enum at this path; one that is missing is created."""
    if len(path) > 1:
        return _nested(_nested(parent, path[:-1], "message_type"), path[-1:], kind)
    of_message = isinstance(parent, descriptor_pb2.DescriptorProto) and kind == "message_type"
    members = getattr(parent, "nested_type" if of_message else kind)
    return next((member for member in members if member.name == path[0]), None) or members.add(name=path[0])


def _add_values(enum: Any, values: Iterable[str]) -> None:
    known = {value.name for value in enum.value}
    for number, name in enumerate(values):
        if name not in known:
            enum.value.add(name=name, number=number)


def _add_fields(message: Any, types: dict[str, str], package: str) -> None:
    known = {field.name for field in message.field}
    for number, (name, type_) in enumerate(types.items(), start=FIRST_NUMBER):
        if name not in known:
            _add_field(message, Field(name=name, number=number, label=Field.LABEL_OPTIONAL), type_, package)


def _add_field(message: Any, field: Any, type_: str, package: str) -> None:
    oneof, _, type_ = type_.rpartition("/")
    modifier, _, type_ = type_.rpartition(" ")
    if modifier == "repeated":
        field.label = Field.LABEL_REPEATED
    elif modifier == "optional":
        field.proto3_optional, oneof = True, f"_{field.name}"
    elif modifier == "map":
        type_ = _add_map_entry(message, field, type_)
    _set_type(field, type_, package)
    if oneof:
        field.oneof_index = _oneof(message, oneof)
    message.field.append(field)


def _add_map_entry(message: Any, field: Any, type_: str) -> str:
    """Add the message of a map's entries, and return its name."""
    field.label = Field.LABEL_REPEATED
    entry = message.nested_type.add(name=f"{field.name.title().replace('_', '')}Entry")
    entry.options.map_entry = True
    for number, (name, value) in enumerate((("key", "string"), ("value", type_)), start=1):
        entry.field.add(name=name, number=number, label=Field.LABEL_OPTIONAL, type=SCALARS[value])
    return f"{message.name}.{entry.name}"


def _oneof(message: Any, name: str) -> int:
    """Return the index of a oneof; one that is missing is created."""
    names = [oneof.name for oneof in message.oneof_decl]
    if name not in names:
        message.oneof_decl.add(name=name)
        names.append(name)
    return names.index(name)


def _set_type(field: Any, type_: str, package: str) -> None:
    if type_ in SCALARS:
        field.type = SCALARS[type_]
    else:
        # Without a type, the name decides between message and enum.
        field.type_name = f".{type_}" if type_.startswith("google.") else f".{package}.{type_}"
