"""The subset of the Logging query language that clients of jobs use.

Comparisons of a field (``= != < <= > >= : =~ !~``), a bare word or string that matches any field, ``AND``, ``OR``,
``NOT``, ``-`` and parentheses. https://cloud.google.com/logging/docs/view/logging-query-language
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from google.logging.type import log_severity_pb2
from google.protobuf import json_format, struct_pb2

Predicate = Callable[[Any], bool]


class MalformedFilter(ValueError):
    """The filter cannot be parsed; the message names the position."""


TOKEN = re.compile(
    r"""\s*(?:--[^\n]*)?\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<sign><=|>=|!=|=~|!~|[=<>:()])|(?P<word>[^\s=<>!:()"]+))"""
)
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
OPERATORS = {*COMPARISONS, "!=", ":", "=~", "!~"}
KEYWORDS = {("word", "AND"), ("word", "OR")}
SNAKE = re.compile(r"(?<=[a-z0-9])([A-Z])")


def compile_filter(text: str) -> Predicate:
    """Return a function that returns True if an entry matches the filter."""
    if not text.strip():
        return lambda _: True
    return _Parser(_tokens(text)).parse()


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens, position = [], 0
    text = text.rstrip()
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None:
            raise MalformedFilter(f"unexpected {text[position : position + 20]!r}")
        kind = match.lastgroup or ""
        tokens.append((kind, _unquoted(match[kind]) if kind == "string" else match[kind]))
        position = match.end()
    return tokens


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])


class _Parser:
    """A recursive descent parser. AND binds tighter than OR, and is optional."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = [*tokens, ("end", "")]
        self._at = 0

    def parse(self) -> Predicate:
        predicate = self._or()
        if self._peek[0] != "end":
            raise MalformedFilter(f"unexpected {self._peek[1]!r}")
        return predicate

    @property
    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at]

    def _next(self) -> tuple[str, str]:
        self._at += 1
        return self._tokens[self._at - 1]

    def _take(self, *expected: tuple[str, str]) -> bool:
        if self._peek in expected:
            self._at += 1
            return True
        return False

    def _or(self) -> Predicate:
        choices = [self._and()]
        while self._take(("word", "OR")):
            choices.append(self._and())
        return choices[0] if len(choices) == 1 else lambda entry: any(choice(entry) for choice in choices)

    def _and(self) -> Predicate:
        parts = [self._term()]
        while self._peek[0] != "end" and self._peek not in (("word", "OR"), ("sign", ")")):
            self._take(("word", "AND"))
            parts.append(self._term())
        return parts[0] if len(parts) == 1 else lambda entry: all(part(entry) for part in parts)

    def _term(self) -> Predicate:
        if self._take(("word", "NOT"), ("word", "-")):
            negated = self._term()
            return lambda entry: not negated(entry)
        if self._take(("sign", "(")):
            inner = self._or()
            if not self._take(("sign", ")")):
                raise MalformedFilter(f"expected ')', got {self._peek[1]!r}")
            return inner
        return self._comparison()

    def _comparison(self) -> Predicate:
        kind, text = self._next()
        if kind not in ("word", "string") or (kind, text) in KEYWORDS:
            raise MalformedFilter(f"expected a field or a string, got {text!r}")
        path = self._path(kind, text)
        if self._peek[0] != "sign" or self._peek[1] not in OPERATORS:
            return lambda entry: any(text.lower() in found.lower() for found in _texts(entry))
        sign = self._next()[1]
        kind, value = self._next()
        if kind not in ("word", "string"):
            raise MalformedFilter(f"expected a value after {sign!r}, got {value!r}")
        return _compare(path, sign, value)

    def _path(self, kind: str, text: str) -> list[str]:
        """Return a field's path. Quoted parts, as in ``labels."a/b"``, are separate tokens."""
        path = [text] if kind == "string" else text.split(".")
        while path[-1] == "" and self._peek[0] == "string":
            path[-1] = self._next()[1]
            if self._peek[0] == "word" and self._peek[1].startswith("."):
                path.extend(self._next()[1][1:].split("."))
        return path


def _compare(path: list[str], sign: str, value: str) -> Predicate:
    if path == ["severity"]:
        return _compare_key(lambda entry: entry.severity, sign, _severity(value))
    if path in (["timestamp"], ["receiveTimestamp"]):
        field = "timestamp" if path == ["timestamp"] else "receive_timestamp"
        return _compare_key(lambda entry: getattr(entry, field).ToDatetime(UTC), sign, _instant(value))
    if sign in ("=~", "!~"):
        _check_pattern(value)
    if sign in ("!=", "!~"):
        same = _compare(path, "=" if sign == "!=" else "=~", value)
        return lambda entry: not same(entry)
    return lambda entry: _holds(_lookup(entry, path), sign, value)


def _compare_key(key: Callable[[Any], Any], sign: str, value: Any) -> Predicate:
    if sign == "!=":
        return lambda entry: bool(key(entry) != value)
    if sign not in COMPARISONS:
        raise MalformedFilter(f"{sign!r} does not apply to this field")
    return lambda entry: COMPARISONS[sign](key(entry), value)


def _holds(found: Any, sign: str, value: str) -> bool:
    if found is None:
        return False
    if sign == ":":
        return value == "*" or value.lower() in str(found).lower()
    if sign == "=~":
        return re.search(value, str(found)) is not None
    if isinstance(found, float):
        return _number(value) is not None and COMPARISONS[sign](found, _number(value))
    if isinstance(found, bool):
        return COMPARISONS[sign](str(found).lower(), value.lower())
    # Comparisons of strings ignore case.
    return COMPARISONS[sign](str(found).lower(), value.lower())


def _lookup(entry: Any, path: list[str]) -> Any:
    found: Any = entry
    for position, part in enumerate(path):
        if isinstance(found, struct_pb2.Struct):
            return _in_payload(found, path[position:])
        if hasattr(found, "DESCRIPTOR"):
            found = getattr(found, SNAKE.sub(r"_\1", part).lower(), None)
        else:
            # A map, whose keys may contain dots.
            return found.get(".".join(path[position:])) if hasattr(found, "get") else None
    return found


def _in_payload(payload: Any, path: list[str]) -> Any:
    found: Any = json_format.MessageToDict(payload)
    for part in path:
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _texts(entry: Any) -> list[str]:
    payload = str(json_format.MessageToDict(entry.json_payload)) if entry.HasField("json_payload") else ""
    return [
        entry.text_payload,
        payload,
        entry.log_name,
        *entry.labels.values(),
        *entry.resource.labels.values(),
    ]


def _severity(value: str) -> int:
    try:
        return int(value) if value.isdecimal() else int(log_severity_pb2.LogSeverity.Value(value.upper()))
    except ValueError as error:
        raise MalformedFilter(f"{value!r} is not a severity") from error


def _check_pattern(value: str) -> None:
    try:
        re.compile(value)
    except (re.error, RecursionError) as error:
        raise MalformedFilter(f"{value!r} is not a regular expression: {error}") from error


def _instant(value: str) -> datetime:
    try:
        instant = datetime.fromisoformat(value)
    except ValueError as error:
        raise MalformedFilter(f"{value!r} is not a timestamp") from error
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None
