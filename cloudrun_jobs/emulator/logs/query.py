"""Parse the Logging query language into a tree."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lark import Lark

MAX_CHARACTERS = 20_000
MAX_DEPTH = 100  # Of negations and parentheses. The service has a limit too, which is not documented.
GRAMMAR = Path(__file__).with_name("query.lark")

PART = re.compile(r'"(?:[^"\\]|\\[\s\S])*"|(?:[^".\\]|\\[\s\S])+')
# In a string, also the escape sequences of control characters.
ESCAPED = re.compile(r"\\(u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|[0-3][0-7]{2}|[0-7]{1,2}|[\s\S])")
CONTROLS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


class MalformedFilter(ValueError):
    """The filter cannot be parsed, or does not apply to log entries."""


@dataclass(frozen=True, slots=True)
class Member:
    """A value, or the path of a field: ``ERROR``, ``"some text"``, ``labels."a/b"``."""

    source: str

    @property
    def path(self) -> list[str]:
        return [_unquoted(part) for part in PART.findall(self.source)]

    @property
    def text(self) -> str:
        return ".".join(self.path)

    @property
    def is_quoted(self) -> bool:
        return PART.findall(self.source) == [self.source] and self.source.startswith('"')


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Restriction:
    """A comparison of a field or a function; without an operator, a value that any field may have."""

    subject: Member | Call
    operator: str
    argument: Node | None


@dataclass(frozen=True, slots=True)
class Junction:
    all: bool  # AND; otherwise OR.
    operands: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Negation:
    operand: Node


Node = Member | Call | Restriction | Junction | Negation


def parse(text: str) -> Node | None:
    """Return the tree of a filter; None if it is empty."""
    if len(text) > MAX_CHARACTERS:
        raise MalformedFilter(f"Filter cannot be longer than {MAX_CHARACTERS} characters.")
    from lark.exceptions import UnexpectedCharacters, UnexpectedToken

    try:
        tree = _parser().parse(text)
    except UnexpectedToken as error:
        raise _syntax_error(error.line, error.column, "" if error.token.type == "$END" else error.token) from None
    except UnexpectedCharacters as error:
        raise _syntax_error(error.line, error.column, error.char) from None
    return next(_nodes(tree.children, 0), None)


@cache
def _parser() -> Lark:
    from lark import Lark  # It takes a while to import, and few tests filter logs.

    return Lark(GRAMMAR.read_text(), parser="lalr", lexer="basic")


def _syntax_error(line: int, column: int, token: str) -> MalformedFilter:
    return MalformedFilter(f"syntax error at line {line}, column {column}, token '{token}'")


def _node(tree: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise MalformedFilter(f"the filter is nested more than {MAX_DEPTH} levels deep")
    return BUILDERS[tree.data](tree.children, depth + 1)


def _member(children: list[Any], _: int) -> Member:
    return Member(str(children[0]))


def _function(children: list[Any], depth: int) -> Call:
    name, *arguments = children
    return Call(name[:-1].strip().lower(), tuple(_nodes(arguments, depth)))


def _restriction(children: list[Any], depth: int) -> Node:
    subject, operator, argument = children
    if operator is None:
        return Restriction(_node(subject, depth), "", None)
    return Restriction(_node(subject, depth), str(operator), _node(argument, depth))


def _nodes(children: list[Any], depth: int) -> Iterator[Node]:
    return (_node(child, depth) for child in children if child is not None)


BUILDERS: dict[str, Callable[[list[Any], int], Node]] = {
    "member": _member,
    "function": _function,
    "restriction": _restriction,
    "negation": lambda children, depth: Negation(_node(children[0], depth)),
    "conjunction": lambda children, depth: Junction(True, tuple(_nodes(children, depth))),
    "disjunction": lambda children, depth: Junction(False, tuple(_nodes(children, depth))),
}


def _unquoted(part: str) -> str:
    return ESCAPED.sub(_unescaped, part[1:-1] if part.startswith('"') else part)


def _unescaped(match: re.Match[str]) -> str:
    sequence = match[1]
    if sequence[0] in "ux" and len(sequence) > 1:
        return chr(int(sequence[1:], 16))
    if sequence[0] in "01234567":
        return chr(int(sequence, 8))
    if sequence in CONTROLS:
        return CONTROLS[sequence]
    if sequence not in ',:=<>+~"\\.*':
        raise MalformedFilter(f"invalid escape sequence: {match[0]}")
    return sequence
