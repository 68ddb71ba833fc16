"""Read JSON as the messages of an API, with the errors of Google's API frontend.

https://protobuf.dev/programming-guides/json/
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import sys
from typing import TYPE_CHECKING, Any

from google.protobuf import duration_pb2, json_format, timestamp_pb2
from google.protobuf.descriptor import FieldDescriptor as Field

from cloudrun_jobs.emulator.errors import ServiceError, invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_DEPTH = 100  # levels of nesting
CONTEXT = 20  # Characters shown on each side of a syntax error.
INTEGER = re.compile(r"-?\d{1,20}", re.ASCII)
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
# The frontend's sentences for the errors of Python's decoder.
SYNTAX_ERRORS = {
    "Expecting ',' delimiter": "Expected , or } after key:value pair.",
    "Expecting ':' delimiter": "Expected : between key:value pair.",
    "Expecting property name enclosed in double quotes": "Expected an object key or }.",
    "Extra data": "Parsing terminated before end of input.",
    "Unterminated string starting at": "Closing quote expected in string.",
}
INTEGERS = {
    Field.TYPE_INT32: ("TYPE_INT32", -(2**31), 2**31),
    Field.TYPE_UINT32: ("TYPE_UINT32", 0, 2**32),
    Field.TYPE_INT64: ("TYPE_INT64", -(2**63), 2**63),
    Field.TYPE_UINT64: ("TYPE_UINT64", 0, 2**64),
}
FLOATS = {Field.TYPE_FLOAT: "TYPE_FLOAT", Field.TYPE_DOUBLE: "TYPE_DOUBLE"}
WRAPPERS = frozenset(
    f"google.protobuf.{kind}Value"
    for kind in ("Bool", "Bytes", "Double", "Float", "Int32", "Int64", "String", "UInt32", "UInt64")
)
MAX_FLOAT = 3.4028234663852886e38
STRUCT = "google.protobuf.Struct"
# Messages whose JSON is not that of their fields: a value is read as it is.
FREE_FORM = ("google.protobuf.Any", "google.protobuf.Value", "google.protobuf.ListValue")
TEXTS = {
    "google.protobuf.Duration": duration_pb2.Duration,
    "google.protobuf.Timestamp": timestamp_pb2.Timestamp,
}


class Wrong(Exception):
    """A value that its field does not accept. `at` is the path to report, if not the value's."""

    def __init__(self, type_: str, reason: str, at: str = "") -> None:
        super().__init__(type_, reason)
        self.type, self.reason, self.at = type_, reason, at


def decode(body: bytes) -> Any:
    """Return the value of a JSON text, or raise INVALID_ARGUMENT."""
    try:
        value = json.loads(body, parse_constant=_no_constant)
        if SURROGATE.search(body):
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise invalid(f"Invalid JSON payload received. {_syntax_error(error)}") from error
    except UnicodeError as error:
        raise invalid("Invalid JSON payload received. Encountered non UTF-8 code points.") from error
    except ValueError as error:
        raise invalid("Invalid JSON payload received. Unexpected token.") from error
    except RecursionError as error:
        raise _too_deep() from error
    _check_depth(value)
    return value


def fill(pb: Any, content: Any, at: str = "") -> None:
    """Set the fields of a message from its JSON, or raise INVALID_ARGUMENT with every violation.

    `at` is the path of the message in the request, such as ``job``.
    """
    reader = _Reader()
    cleaned = reader.fields(pb.DESCRIPTOR, content, at)
    if reader.violations:
        raise violation_error(reader.violations)
    try:
        json_format.ParseDict(cleaned, pb)
    except (json_format.ParseError, RecursionError) as error:
        # A message of an unknown type in an Any.
        raise invalid("Request contains an invalid argument.") from error
    for path, paths in reader.masks:
        message = pb
        for name in path.removeprefix(f"{at}.").split("."):
            message = getattr(message, name)
        message.paths.extend(paths)


def violation_error(violations: Iterable[tuple[str, str]]) -> ServiceError:
    """Return an error about the fields of a request: pairs of a field and a description."""
    found = [
        {"field": field, "description": description} if field else {"description": description}
        for field, description in violations
    ]
    detail = {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": found}
    return ServiceError("INVALID_ARGUMENT", "\n".join(each["description"] for each in found), [detail])


def unknown_name(name: str, at: str, reason: str = "Cannot find field.") -> tuple[str, str]:
    place = f" at '{at}'" if at else ""
    return at, f'Invalid JSON payload received. Unknown name "{name}"{place}: {reason}'


def find_field(descriptor: Any, name: str) -> Any:
    """Return the field with this JSON or proto name, or None."""
    return descriptor.fields_by_camelcase_name.get(name) or descriptor.fields_by_name.get(name)


def is_repeated(field: Any) -> bool:
    """Return True for a list or a map, in each release of protobuf."""
    return bool(field.is_repeated if hasattr(field, "is_repeated") else field.label == Field.LABEL_REPEATED)


def is_map(field: Any) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def split_paths(text: str) -> list[str]:
    """Return the paths of a field mask: ``labels,template.task_count``. Commas in quotes do not separate."""
    return [path for path in re.findall(r"(?:`[^`]*`|[^,`])+", text) if path]


def snake_case(path: str) -> str:
    """Return a path of a field mask in the names of the proto. Keys of maps in backticks stay as they are."""
    parts = re.split("(`[^`]*`)", path)
    parts[::2] = [re.sub("[A-Z]", lambda match: f"_{match[0].lower()}", part) for part in parts[::2]]
    return "".join(parts)


class _Reader:
    """Turns JSON into what the parser of protobuf accepts, and collects the violations."""

    def __init__(self) -> None:
        self.violations: list[tuple[str, str]] = []
        self.masks: list[tuple[str, list[str]]] = []  # Field masks by path; protobuf's parser refuses snake_case.

    def fields(self, descriptor: Any, content: dict[str, Any], at: str) -> dict[str, Any]:
        cleaned: dict[str, Any] = {}
        oneofs: set[str] = set()
        for name, value in content.items():
            field = find_field(descriptor, name)
            if field is None:
                self.violations.append(unknown_name(name, at))
            elif not _is_null(field, value) and self._is_first_of_oneof(field, name, at, oneofs):
                self._field(field, name, value, at, cleaned)
        return cleaned

    def _is_first_of_oneof(self, field: Any, name: str, at: str, oneofs: set[str]) -> bool:
        oneof = field.containing_oneof
        if oneof is None or oneof.name not in oneofs:
            oneofs.add(oneof.name if oneof is not None else "")
            return True
        self._report(at, Wrong("oneof", f"oneof field '{oneof.name}' is already set. Cannot set '{name}'"))
        return False

    def _field(self, field: Any, name: str, value: Any, at: str, cleaned: dict[str, Any]) -> None:
        path = f"{at}.{field.name}" if at else field.name
        if _is(field, "google.protobuf.FieldMask"):
            self.masks.append((path, _paths(value)))
        elif is_map(field):
            cleaned[field.json_name] = self._map(field, name, value, path)
        elif is_repeated(field):
            # The frontend takes a single value for a list of one.
            values = value if isinstance(value, list) else [value]
            cleaned[field.json_name] = [
                self._value(field, name, each, at, f"{path}[{index}]")
                for index, each in enumerate(values)
                if not _is_null(field, each)
            ]
        else:
            cleaned[field.json_name] = self._value(field, name, value, at, path)

    def _map(self, field: Any, name: str, value: Any, path: str) -> Any:
        """Return the entries of a map; an entry with null is left out."""
        if not isinstance(value, dict):
            type_ = f"type.googleapis.com/{field.message_type.full_name}"
            return self._report(path, Wrong(type_, json.dumps(value)))
        of_value = field.message_type.fields_by_name["value"]
        return {
            key: self._value(of_value, name, each, path, f"{path}[{index}].value")
            for index, (key, each) in enumerate(value.items())
            if not _is_null(of_value, each)
        }

    def _value(self, field: Any, name: str, value: Any, parent: str, path: str) -> Any:
        """Return one value of a field in the form of protobuf's parser."""
        try:
            if any(_is(field, free) for free in FREE_FORM):
                return value
            if isinstance(value, list):
                self.violations.append(
                    unknown_name(name, parent, "Proto field is not repeating, cannot start list.")
                )
                return None
            if field.message_type is None:
                return _scalar(field, value, parent)
            return self._message(field, name, value, path)
        except Wrong as error:
            return self._report(error.at or path, error)

    def _message(self, field: Any, name: str, value: Any, path: str) -> Any:
        full_name = field.message_type.full_name
        if full_name in TEXTS:
            return _text(TEXTS[full_name], full_name, name, value)
        if full_name in WRAPPERS:
            return _scalar(field.message_type.fields_by_name["value"], value, path)
        if not isinstance(value, dict):
            raise Wrong(f"type.googleapis.com/{full_name}", json.dumps(value))
        return self.fields(field.message_type, value, path) if full_name != STRUCT else value

    def _report(self, at: str, error: Wrong) -> None:
        self.violations.append((at, f"Invalid value at '{at}' ({error.type}), {error.reason}"))


def _is(field: Any, full_name: str) -> bool:
    return field.message_type is not None and field.message_type.full_name == full_name


def _is_null(field: Any, value: Any) -> bool:
    """Return True for null, which stands for the default, except in a field of any JSON."""
    return value is None and not (_is(field, "google.protobuf.Value") and not is_repeated(field))


def _scalar(field: Any, value: Any, parent: str) -> Any:
    if isinstance(value, dict):
        raise Wrong(field.name, "Starting an object on a scalar field", parent)
    kind = field.type
    if kind in INTEGERS:
        return _integer(kind, value)
    if kind in FLOATS:
        return _number(kind, value)
    return SCALARS[kind](field, value)


def _integer(kind: int, value: Any) -> int:
    name, least, limit = INTEGERS[kind]
    if isinstance(value, str):
        is_whole = INTEGER.fullmatch(value) is not None
    else:
        is_whole = isinstance(value, int | float) and not isinstance(value, bool) and value % 1 == 0
    if not is_whole or not least <= int(value) < limit:
        raise Wrong(name, json.dumps(value))
    return int(value)


def _number(kind: int, value: Any) -> Any:
    if value in ("NaN", "Infinity", "-Infinity"):
        return value
    largest = MAX_FLOAT if kind == Field.TYPE_FLOAT else sys.float_info.max
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (ValueError, OverflowError):
        number = math.nan
    if not abs(number) <= largest:  # Also if it is not a number.
        raise Wrong(FLOATS[kind], json.dumps(value))
    return number


def _boolean(_: Any, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value not in ("true", "false"):
        raise Wrong("TYPE_BOOL", json.dumps(value))
    return bool(value == "true")


def _string(_: Any, value: Any) -> str:
    if not isinstance(value, str):
        raise Wrong("TYPE_STRING", json.dumps(value))
    return value


def _bytes(_: Any, value: Any) -> str:
    """Return the value in standard Base64; the URL-safe alphabet and missing padding are accepted."""
    if not isinstance(value, str):
        raise Wrong("TYPE_BYTES", json.dumps(value))
    text = value.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Wrong("TYPE_BYTES", f"Base64 decoding failed for {json.dumps(value)}") from error
    return text


def _enum(field: Any, value: Any) -> Any:
    enum = field.enum_type
    if isinstance(value, str) and value in enum.values_by_name:
        return value
    try:
        return _integer(Field.TYPE_INT32, value)
    except Wrong as error:
        raise Wrong(f"type.googleapis.com/{enum.full_name}", json.dumps(value)) from error


def _text(message_class: Any, full_name: str, name: str, value: Any) -> Any:
    """Return a duration or a time, if it is one."""
    try:
        message_class().FromJsonString(value)
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        reason = f"Field '{name}', {_time_error(full_name, value)}"
        raise Wrong(f"type.googleapis.com/{full_name}", reason) from error
    return value


def _time_error(full_name: str, value: Any) -> str:
    kind = full_name.rpartition(".")[2].lower()
    if not isinstance(value, str):
        return f"Invalid data type for {kind}, value is {json.dumps(value)}"
    if kind == "duration" and not value.endswith("s"):
        return "Illegal duration format; duration must end with 's'"
    if kind == "timestamp" and not re.search(r"(Z|[+-]\d\d:\d\d)$", value):
        return "Illegal timestamp format; timestamps must end with 'Z' or have a valid timezone offset."
    return f"Invalid {kind} format, failed to parse {json.dumps(value)}"


def _paths(value: Any) -> list[str]:
    """Return the paths of a field mask in the names of the proto."""
    texts = value.get("paths", []) if isinstance(value, dict) else [value]
    return [snake_case(path) for text in texts for path in split_paths(str(text))]


def _syntax_error(error: json.JSONDecodeError) -> str:
    start, end = max(error.pos - CONTEXT, 0), error.pos + CONTEXT
    reasons = (reason for python, reason in SYNTAX_ERRORS.items() if error.msg.startswith(python))
    reason = next(reasons, "Unexpected token.")
    if error.pos >= len(error.doc.rstrip()) and reason == "Unexpected token.":
        reason = "Unexpected end of string. Expected a value."
    shown = error.doc[start:end]
    return f"{reason}\n{shown}\n{' ' * (error.pos - start)}^"


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    if any(isinstance(inner, dict | list) for inner in level):
        raise _too_deep()


def _too_deep() -> ServiceError:
    return invalid("Invalid JSON payload received. Message too deep. Max recursion depth reached.")


SCALARS: dict[int, Callable[[Any, Any], Any]] = {
    Field.TYPE_BOOL: _boolean,
    Field.TYPE_STRING: _string,
    Field.TYPE_BYTES: _bytes,
    Field.TYPE_ENUM: _enum,
}
