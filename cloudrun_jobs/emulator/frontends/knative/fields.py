"""Fields of v1's JSON, and how each is kept in the messages of v2.

A field reads its v1 value from a v2 message (`get`) and writes it there (`overlay`). An overlay changes a message
only where its v1 value differs, so the parts of a v2 message that v1 cannot express stay as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format

from cloudrun_jobs.emulator import json_reader
from cloudrun_jobs.emulator.errors import ServiceError, invalid

# The path and the sentence of each violation in a JSON payload.
Violations = list[tuple[str, str]]
# The aliases of secrets in other projects, in the annotation `run.googleapis.com/secrets`.
Aliases = Mapping[str, str]
INT32, INT64 = 2**31, 2**63
MAX_SECONDS = 315_576_000_000  # of a google.protobuf.Duration


class Unexpected(ValueError):
    """A text that has no form in v2; its message is what was expected."""


def wrong(path: str, type_name: str, value: Any) -> tuple[str, str]:
    return path, f"Invalid value at '{path}' ({type_name}), {json.dumps(value)}"


def snake(name: str) -> str:
    """Return the name as in errors: ``taskCount`` is ``task_count``."""
    return re.sub("([A-Z]+)", r"_\1", name).lower()


def _at(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


# The types of values. Each check returns the value in its canonical form, and None for null.


@dataclass(frozen=True)
class Scalar:
    name: str
    read: Callable[[Any], Any]

    def check(self, value: Any, path: str, violations: Violations) -> Any:
        try:
            return self.read(value)
        except (KeyError, TypeError, ValueError, OverflowError):
            violations.append(wrong(path, self.name, value))
            return None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    value.encode()  # A lone surrogate is no text.
    return value


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}[_text(value)]


def _integer(limit: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
            raise TypeError
        if isinstance(value, str) and not json_reader.INTEGER.fullmatch(value):
            raise ValueError
        number = int(value)
        if not -limit <= number < limit:
            raise ValueError
        return number

    return read


TEXT = Scalar("TYPE_STRING", _text)
BOOLEAN = Scalar("TYPE_BOOL", _boolean)
INTEGER = Scalar("TYPE_INT32", _integer(INT32))
# Protobuf's JSON format writes a 64-bit number as a string.
LONG = Scalar("TYPE_INT64", lambda value: str(_integer(INT64)(value)))


@dataclass(frozen=True)
class Anything:
    """A value that only the service sets: what a client sends is ignored."""

    def check(self, value: Any, path: str, violations: Violations) -> None:
        return None


@dataclass(frozen=True)
class Unsupported:
    """A field of Knative that Cloud Run does not support."""

    def check(self, value: Any, path: str, violations: Violations) -> None:
        if value:
            in_resource = path[path.find(".spec.") + 1 :]
            violations.append((path, f"must not set the field(s): {in_resource}"))


@dataclass(frozen=True)
class Listing:
    """A list of values of one type."""

    of: Any

    def check(self, value: Any, path: str, violations: Violations) -> list[Any] | None:
        # Google's frontend takes a single value for a list of one, and leaves out null.
        items = value if isinstance(value, list) else [value]
        return [
            self.of.check(item, f"{path}[{index}]", violations)
            for index, item in enumerate(items)
            if item is not None
        ] or None


@dataclass(frozen=True)
class Texts:
    """A map from text to text."""

    def check(self, value: Any, path: str, violations: Violations) -> dict[str, str] | None:
        if not isinstance(value, dict):
            violations.append(wrong(path, "map", value))
            return None
        return {
            key: TEXT.check(item, f"{path}[{index}].value", violations)
            for index, (key, item) in enumerate(value.items())
            if item is not None
        } or None


TEXTS, MAP, IGNORED, UNSUPPORTED = Listing(TEXT), Texts(), Anything(), Unsupported()


# The forms of a value in v1 and in v2.


@dataclass(frozen=True)
class Codec:
    parse: Callable[[Any], Any] = lambda value: value
    render: Callable[[Any], Any] = lambda value: value
    expected: str = ""  # For the error of a value that cannot be parsed.


def enum(values: Mapping[str, int]) -> Codec:
    """Return the codec of an enum with other names in v1. Several may have one number: the first is rendered."""
    return Codec(
        values.__getitem__,
        lambda number: next((name for name, each in values.items() if each == number), None),
        f"one of {', '.join(name or repr(name) for name in values)}",
    )


def _flag(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _seconds(unit: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        seconds = unit * _integer(INT64)(value)
        if abs(seconds) > MAX_SECONDS:
            raise ValueError
        return seconds

    return parse


def _parsed_json(check: Callable[[Any], bool]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        value = json_reader.decode(text.encode())
        if not check(value):
            raise TypeError
        return value

    return parse


def _is_list(value: Any, of: type = str) -> bool:
    return isinstance(value, list) and all(isinstance(each, of) for each in value)


def _is_map_of(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(check(each) for each in value.values())


def _sorted_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


SAME = Codec()
SECONDS = Codec(_seconds(1), lambda duration: duration.seconds, "a number of seconds")
SECONDS_TEXT = Codec(SECONDS.parse, lambda duration: str(duration.seconds), SECONDS.expected)
HOURS = Codec(_seconds(3600), lambda duration: str(duration.seconds // 3600), "a number of hours")
NUMBER_TEXT = Codec(_integer(INT32), str, "a number")
FLAG_TEXT = Codec(_flag, lambda value: "true" if value else "false", "true or false")
JSON_LIST = Codec(_parsed_json(_is_list), json.dumps, "a JSON list of strings")
JSON_MAP = Codec(
    _parsed_json(_is_map_of(lambda each: isinstance(each, str))), _sorted_json, "a JSON object of strings"
)
JSON_LISTS = Codec(_parsed_json(_is_map_of(_is_list)), _sorted_json, "a JSON object of lists of strings")
JSON_MESSAGES = Codec(_parsed_json(lambda value: _is_list(value, dict)), json.dumps, "a JSON list of objects")


def parsed(codec: Codec, value: Any) -> Any:
    try:
        return codec.parse(value)
    except (KeyError, TypeError, ValueError, OverflowError, ServiceError) as error:
        raise Unexpected(codec.expected) from error


# Fields.


@dataclass(frozen=True)
class Field:
    """A value in v1 that is one field of v2; without a path, v2 does not have it, and it is dropped."""

    name: str
    kind: Any = TEXT
    path: str = ""
    codec: Codec = SAME

    def get(self, pb: Any) -> Any:
        """Return the v1 value; None if it is not set, or has no v1 form."""
        parent = _parent(pb, self.path)
        value = None if parent is None else _get(parent, self.path.rpartition(".")[2])
        return None if value is None else self.codec.render(value)

    def put(self, pb: Any, value: Any, aliases: Aliases) -> None:
        if not self.path:
            return
        if value is None:
            _clear(pb, self.path.split("."))
            return
        found = parsed(self.codec, value)
        *parents, last = self.path.split(".")
        for name in parents:
            pb = getattr(pb, name)
        _set(pb, last, found)

    def overlay(self, pb: Any, value: Any, aliases: Aliases) -> None:
        if self.get(pb) != value:
            self.put(pb, value, aliases)


@dataclass(frozen=True)
class JsonMessages(Field):
    """A list of messages, which v1 has as JSON in a string."""

    def get(self, pb: Any) -> str | None:
        parent = _parent(pb, self.path)
        found = None if parent is None else _get(parent, self.path.rpartition(".")[2])
        return None if found is None else json.dumps([json_format.MessageToDict(each) for each in found])

    def put(self, pb: Any, value: Any, aliases: Aliases) -> None:
        super().put(pb, None, aliases)
        if value is None:
            return
        messages = parsed(JSON_MESSAGES, value)
        *parents, last = self.path.split(".")
        for name in parents:
            pb = getattr(pb, name)
        for index, each in enumerate(messages):
            try:
                json_reader.fill(getattr(pb, last).add(), each, f"[{index}]")
            except ServiceError as error:
                raise Unexpected(f"a list of {last.replace('_', ' ')}: {error.message}") from error


@dataclass(frozen=True)
class Message:
    """A message of v1 with its fields."""

    name: str
    fields: tuple[Field, ...]
    one_of: tuple[str, ...] = ()  # At most one of these fields is set.

    def check(self, value: Any, path: str, violations: Violations) -> dict[str, Any] | None:
        """Return the JSON object with the names of fields as in the table, and note what is wrong with it."""
        if not isinstance(value, dict):
            violations.append(wrong(path, f"type.googleapis.com/google.cloud.run.v1.{self.name}", value))
            return None
        known = {form: each for each in self.fields for form in (each.name, snake(each.name))}
        found = {}
        for name, given in value.items():
            if name not in known:
                violations.append(json_reader.unknown_name(name, path))
            elif isinstance(given, list) and not isinstance(known[name].kind, Listing | Anything | Unsupported):
                violations.append(
                    json_reader.unknown_name(name, path, "Proto field is not repeating, cannot start list.")
                )
            elif given is not None:
                each = known[name]
                checked = each.kind.check(given, _at(path, snake(each.name)), violations)
                if checked is not None:
                    found[each.name] = checked
        return self._without_rivals(found, path, violations)

    def _without_rivals(self, found: dict[str, Any], path: str, violations: Violations) -> dict[str, Any]:
        """Note two fields that exclude each other; an empty text beside another field counts as no value."""
        rivals = [name for name in self.one_of if name in found]
        empty = [name for name in rivals if found[name] == ""]
        if len(rivals) - len(empty) > 1:
            expected, given = ", ".join(self.one_of), ", ".join(rivals)
            violations.append(
                (path, f"Invalid value at '{path}': expected at most one of {expected}, got {given}")
            )
        ignored = empty if len(rivals) > 1 else []
        return {name: value for name, value in found.items() if name not in ignored}

    def render(self, pb: Any) -> dict[str, Any]:
        found = {each.name: each.get(pb) for each in self.fields}
        return {name: value for name, value in found.items() if value is not None}

    def overlay(self, pb: Any, v1: Mapping[str, Any], aliases: Aliases) -> None:
        for each in self.fields:
            value = v1.get(each.name)
            try:
                each.overlay(pb, value, aliases)
            except Unexpected as error:
                raise unexpected(each.name, value, error) from error


def unexpected(name: str, value: Any, error: Unexpected) -> ServiceError:
    return invalid(f"{name}: Invalid value {value!r}: expected {error}.")


@dataclass(frozen=True)
class Inline(Field):
    """A message of v1 whose fields are in a message that v2 always has: this one, or the one at the path."""

    def get(self, pb: Any) -> dict[str, Any]:
        # gcloud fails on a template without metadata, even if it would be empty.
        found: dict[str, Any] = self.kind.render(getattr(pb, self.path) if self.path else pb)
        return found

    def overlay(self, pb: Any, value: Any, aliases: Aliases) -> None:
        self.kind.overlay(getattr(pb, self.path) if self.path else pb, value or {}, aliases)


@dataclass(frozen=True)
class Optional(Field):
    """A message of v1 that is a message of v2, or absent from both."""

    def get(self, pb: Any) -> dict[str, Any] | None:
        if not pb.HasField(self.path):
            return None
        found: dict[str, Any] = self.kind.render(getattr(pb, self.path))
        return found

    def overlay(self, pb: Any, value: Any, aliases: Aliases) -> None:
        if value is None:
            _clear(pb, [self.path])
            return
        inner = getattr(pb, self.path)
        inner.SetInParent()
        self.kind.overlay(inner, value, aliases)


@dataclass(frozen=True)
class Items(Field):
    """A list of messages: an item keeps what v1 lacks of the stored item with its key, or at its place."""

    key: str = ""
    is_hidden: Callable[[Any], bool] = field(default=lambda _: False)

    def get(self, pb: Any) -> list[dict[str, Any]] | None:
        return [self.kind.of.render(each) for each in getattr(pb, self.path) if not self.is_hidden(each)] or None

    def overlay(self, pb: Any, value: Any, aliases: Aliases) -> None:
        found = getattr(pb, self.path)
        if not value and not found:
            return  # Even an empty list would set the messages around it.
        stored = [copied(each) for each in found]
        hidden = [(index, each) for index, each in enumerate(stored) if self.is_hidden(each)]
        free = [each for each in stored if not self.is_hidden(each)]
        result = []
        for v1, origin in zip(value or (), self._origins(value or (), free), strict=True):
            target = found.add() if origin is None else free[origin]
            self.kind.of.overlay(target, v1, aliases)
            result.append(copied(target))
        for index, each in hidden:
            result.insert(index, each)
        del found[:]
        found.extend(result)

    def _origins(self, value: Any, stored: Any) -> list[int | None]:
        """Return the index of the stored item that each item overlays: of the same name, or else in its place."""
        names, given = [self._name(each) for each in stored], [v1.get(self.key) for v1 in value]
        origins: list[int | None] = []
        for name in given:
            same = (index for index, each in enumerate(names) if each == name and index not in origins)
            origins.append(None if name is None else next(same, None))
        for index, origin in enumerate(origins):
            if (
                origin is None
                and index < len(names)
                and index not in origins
                and (given[index] is None or names[index] is None or names[index] not in given)
            ):
                origins[index] = index
        return origins

    def _name(self, pb: Any) -> Any:
        return next((each.get(pb) for each in self.kind.of.fields if each.name == self.key), None)


@dataclass(frozen=True)
class Annotations(Field):
    """The annotations of a resource: some are fields of v2, the others its annotations."""

    rows: tuple[Field, ...] = ()
    set_by_service: frozenset[str] = frozenset()

    def get(self, pb: Any) -> dict[str, str]:
        return {**pb.annotations, **{row.name: value for row in self.rows if (value := row.get(pb)) is not None}}

    def overlay(self, pb: Any, value: Any, aliases: Aliases) -> None:
        rest = {name: text for name, text in (value or {}).items() if name not in self.set_by_service}
        for row in self.rows:
            text = rest.pop(row.name, None)
            try:
                row.overlay(pb, text, aliases)
            except Unexpected as error:
                raise unexpected(f"metadata.annotations[{row.name}]", text, error) from error
        if dict(pb.annotations) != rest:
            _set(pb, "annotations", rest)


@dataclass(frozen=True)
class Labels(Field):
    """The labels of a resource, without those that the service sets."""

    def overlay(self, pb: Any, value: Any, aliases: Aliases) -> None:
        rest = {name: text for name, text in (value or {}).items() if not is_system_label(name)}
        if dict(pb.labels) != rest:
            _set(pb, "labels", rest)


def is_system_label(name: str) -> bool:
    return name.startswith(("run.googleapis.com/", "cloud.googleapis.com/", "serving.knative.dev/"))


def _parent(pb: Any, path: str) -> Any | None:
    """Return the message that has the last field of the path; None if it is not set."""
    if not path:
        return None
    for name in path.split(".")[:-1]:
        if not pb.HasField(name):
            return None
        pb = getattr(pb, name)
    return pb


def _get(pb: Any, name: str) -> Any:
    descriptor = pb.DESCRIPTOR.fields_by_name[name]
    value = getattr(pb, name)
    if json_reader.is_map(descriptor):
        return dict(value) or None
    if json_reader.is_repeated(descriptor):
        return list(value) or None
    if descriptor.has_presence:
        return value if pb.HasField(name) else None
    return value or None


def _set(pb: Any, name: str, value: Any) -> None:
    descriptor = pb.DESCRIPTOR.fields_by_name[name]
    if not json_reader.is_repeated(descriptor):
        if descriptor.message_type:
            getattr(pb, name).FromSeconds(value)  # A duration.
            getattr(pb, name).SetInParent()
        else:
            setattr(pb, name, value)
        return
    pb.ClearField(name)
    if json_reader.is_map(descriptor):
        getattr(pb, name).update(value)
    else:
        getattr(pb, name).extend(value)


def _clear(pb: Any, path: list[str]) -> None:
    """Clear the field, and the messages around it that are then empty."""
    name, *rest = path
    if pb.DESCRIPTOR.fields_by_name[name].has_presence and not pb.HasField(name):
        return  # Even clearing a field would set the messages around it.
    if rest:
        inner = getattr(pb, name)
        _clear(inner, rest)
        if inner.ByteSize():
            return
    pb.ClearField(name)


def copied(pb: Any) -> Any:
    copy = type(pb)()
    copy.CopyFrom(pb)
    return copy
