"""Compile filters in the Logging query language to functions of log entries.

https://docs.cloud.google.com/logging/docs/view/logging-query-language
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from cloudrun_jobs.emulator.logs import functions
from cloudrun_jobs.emulator.logs.fields import Field, field_of_entry, scalars
from cloudrun_jobs.emulator.logs.operands import Operand
from cloudrun_jobs.emulator.logs.query import (
    Call,
    Junction,
    MalformedFilter,
    Member,
    Negation,
    Node,
    Restriction,
    parse,
)

__all__ = ["MalformedFilter", "compile_filter"]

Predicate = Callable[[Any], bool]


def compile_filter(text: str) -> Predicate:
    """Return a function that returns True if an entry matches the filter.

    Raises:
        MalformedFilter: the filter is not in the language; the message is that of Logging.
    """
    tree = parse(text)
    return _always if tree is None else _compiled(tree, _restriction)


def _compiled(node: Node, leaf: Callable[[Restriction], Predicate]) -> Predicate:
    """Compile a tree of AND, OR and NOT, whose leaves `leaf` compiles."""
    if isinstance(node, Junction):
        parts = [_compiled(operand, leaf) for operand in node.operands]
        return _all(parts) if node.all else _any(parts)
    if isinstance(node, Negation):
        negated = _compiled(node.operand, leaf)
        return lambda entry: not negated(entry)
    return leaf(node if isinstance(node, Restriction) else Restriction(node, "", None))


def _all(parts: Iterable[Predicate]) -> Predicate:
    def matches(entry: Any) -> bool:
        for part in parts:  # noqa: SIM110 - `all` with a generator takes twice as long.
            if not part(entry):
                return False
        return True

    return matches


def _any(parts: Iterable[Predicate]) -> Predicate:
    return lambda entry: any(part(entry) for part in parts)


def _restriction(node: Restriction) -> Predicate:
    subject = node.subject
    if node.argument is None:
        return functions.predicate(subject) if isinstance(subject, Call) else _anywhere(subject)
    if isinstance(subject, Call):
        return _comparison(functions.value(subject), f"{subject.name}()", node.operator, node.argument)
    return _comparison(field_of_entry(subject.path), subject.source, node.operator, node.argument)


def _anywhere(value: Member) -> Predicate:
    """Return True for entries of which any field contains the value."""
    matches = Operand(":", value).matches

    def contains(entry: Any) -> bool:
        found = scalars(entry)
        # One comparison of all texts is faster than one for each.
        texts = "\0".join([each for each in found if type(each) is str])
        return matches(texts) or any(matches(each) for each in found if type(each) is not str)

    return contains


def _comparison(field: Field, name: str, sign: str, argument: Node) -> Predicate:
    """Compare a field with a value, or with each of the values in parentheses."""

    def compare(item: Restriction) -> Predicate:
        if not isinstance(item.subject, Member):
            raise MalformedFilter(f"the function '{item.subject.name}' is not supported as the value of '{name}'")
        if item.argument is not None:
            raise MalformedFilter(f"expected a value of '{name}', got a comparison of '{item.subject.source}'")
        return _of_value(field, name, sign, item.subject)

    return _compiled(argument, compare)


def _of_value(field: Field, name: str, sign: str, value: Member) -> Predicate:
    if sign == ":" and value.source == "*":
        return field.is_present
    operand = Operand(sign, value)
    operand.check(field.type, name)
    matches, values = operand.test_for(field.type), field.values

    def compare(entry: Any) -> bool:
        for found in values(entry):  # noqa: SIM110 - `any` with a generator takes twice as long.
            if matches(found):
                return True
        return False

    return compare


def _always(_: Any) -> bool:
    return True
