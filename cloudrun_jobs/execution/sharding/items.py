"""Check that the items of `claim()` survive JSON unchanged in every supported database."""

from __future__ import annotations

import inspect
import json
import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

from django.db.models import Model, QuerySet
from django.db.models.query import RawQuerySet

from cloudrun_jobs.exceptions import InvalidItems

MAX_ITEM_BYTES = 2**20
MAX_DEPTH = 30  # MariaDB reads at most 32 levels of JSON, and items are stored in a list.
MAX_INTEGER = 2**63  # MySQL stores larger ones as floating-point numbers.
MAX_FLOAT = 1e16  # PostgreSQL returns larger ones as integers.

FETCH_SIZE = 2000  # Rows of a queryset in memory.
HASHES_PER_PASS = 250_000  # In memory, as a set.

PRIMARY_KEYS = 'Pass primary keys: `queryset.values_list("pk", flat=True)`.'
AS_TEXT = "Pass its text: `str(item)`."

_to_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True).encode


def source(call: str, items: Any) -> Iterable[Any]:
    """Return an iterable of the items, which does not fill the cache of a queryset. Raises `InvalidItems`."""
    got, hint = type(items).__name__, ""
    if isinstance(items, str | bytes | bytearray):
        hint = "Pass a list of items."
    elif isinstance(items, Mapping):
        hint = "Pass a list of its keys: `list(mapping)`."
    elif isinstance(items, Set):
        hint = "Its order differs from process to process. Pass `sorted(items)`."
    elif isinstance(items, RawQuerySet) or (isinstance(items, QuerySet) and _yields_models(items)):
        got, hint = "a queryset of model instances", PRIMARY_KEYS
    elif inspect.isgenerator(items) and inspect.getgeneratorstate(items) != inspect.GEN_CREATED:
        got, hint = "a generator that has begun", "Its first items are gone. Pass a new one."
    elif not isinstance(items, Iterable):
        hint = "Pass a list, an iterator or a queryset."
    if hint:
        raise InvalidItems(f"{call}: expected a list or another iterable of items, got {got}.", hint=hint)
    rows = items.iterator(chunk_size=FETCH_SIZE) if isinstance(items, QuerySet) else items
    return _Once(call, rows) if isinstance(rows, Iterator) else rows


class _Once:
    """An iterator whose items can be read once: a second list of them would lack what the first one has read."""

    def __init__(self, call: str, items: Iterator[Any]) -> None:
        self._call, self._items, self._has_begun = call, items, False

    def __iter__(self) -> Iterator[Any]:
        if self._has_begun:
            message = (
                f"{self._call}: the list has to be written again, and this task has read a part of its items."
            )
            raise InvalidItems(message, hint="A retry of the task writes it. A list can be read twice.")
        self._has_begun = True
        return self._items


def _yields_models(items: QuerySet[Any]) -> bool:
    return items._fields is None  # type: ignore[attr-defined]  # of values() and values_list()


def encoded(call: str, items: Iterable[Any]) -> Iterator[tuple[Any, str]]:
    """Yield each item with its JSON text. Raises `InvalidItems` for an item that JSON changes."""
    for index, item in enumerate(items):
        if fault := _fault(item, MAX_DEPTH):
            got, hint = fault
            message = f"{call}: expected items that JSON returns unchanged, got {got} at index {index}."
            raise InvalidItems(message, hint=hint)
        text = _to_json(item)
        if len(text) > MAX_ITEM_BYTES // 4 and (size := len(text.encode())) > MAX_ITEM_BYTES:
            message = f"{call}: expected items of at most {MAX_ITEM_BYTES} bytes, got {size} at index {index}."
            raise InvalidItems(message, hint="Store the data elsewhere and pass its location.")
        yield item, text


def _fault(value: Any, depth: int) -> tuple[str, str] | None:
    """Return a description of the value and a hint; None if JSON returns the value unchanged."""
    kind = type(value)  # A subclass would come back as its base.
    if kind is str:
        return _text_fault(value)
    if kind is int:
        too_big = not -MAX_INTEGER <= value < MAX_INTEGER
        return ("an integer of more than 64 bits", AS_TEXT) if too_big else None
    if value is None or kind is bool:
        return None
    if kind is float:
        survives = abs(value) < MAX_FLOAT and (value or math.copysign(1, value) > 0)
        return None if survives else (f"the number {value!r}", AS_TEXT)
    if kind is list or kind is dict:
        return _container_fault(value, depth)
    if isinstance(value, Model):
        return f"a {kind.__name__}", PRIMARY_KEYS
    return f"a {kind.__name__}", "Pass a list: `list(item)`." if isinstance(value, tuple) else AS_TEXT


def _text_fault(value: str) -> tuple[str, str] | None:
    if "\0" in value:
        return "text with a NUL character", "Remove it: databases cannot store NUL."
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return "text with a lone surrogate", 'Pass `item.encode(errors="backslashreplace").decode()`.'
    return None


def _container_fault(value: list[Any] | dict[Any, Any], depth: int) -> tuple[str, str] | None:
    if not depth:
        return f"a value of more than {MAX_DEPTH} levels", "Pass it flat, or as text."
    if isinstance(value, dict):
        if any(type(key) is not str for key in value):
            return "a dictionary with keys that are not text", "Use `str` keys."
        faults = [fault for key in value if (fault := _text_fault(key))]
        if faults:
            return faults[0]
    children = value.values() if isinstance(value, dict) else value
    return next((fault for child in children if (fault := _fault(child, depth - 1))), None)


class Hashes:
    """Eight bytes of each item, to find duplicates without keeping the items."""

    def __init__(self) -> None:
        self._values = array("q")

    def add(self, text: str) -> None:
        self._values.append(hash(text))

    def __len__(self) -> int:
        return len(self._values)

    def repeated(self) -> Iterator[tuple[int, int]]:
        """Yield the first two indexes of each repeated hash. In rare cases the items differ."""
        passes = 1 + len(self._values) // HASHES_PER_PASS
        again: set[int] = set()
        for number in range(passes):
            seen: set[int] = set()
            for value in self._values:
                if value % passes == number:
                    if value in seen:
                        again.add(value)
                    seen.add(value)
        found: dict[int, int] = {}
        for index, value in enumerate(self._values if again else ()):
            if value in again:
                if value in found:
                    again.discard(value)
                    yield found[value], index
                found[value] = index
