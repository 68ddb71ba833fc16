"""Digests of items and hashes of keys that are the same in every process, unlike Python's `hash()` of text.

A model instance is digested by its primary key, an object whose class has no `__repr__()` by its class alone.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Set
from decimal import Decimal
from enum import Enum
from hashlib import blake2b
from numbers import Real
from typing import Any
from uuid import UUID

from django.db.models import Model, QuerySet

# Up to this number of items, all are digested; of more, a sample.
MAX_DIGESTED_ITEMS = 1000
SAMPLE_SIZE = 64

PLAIN = frozenset({str, int, bytes, float, bool, type(None), UUID, Decimal})  # repr() shows their value.
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def sample_positions(count: int) -> Iterable[int]:
    """Return the positions of the items to digest: all, or evenly spaced ones from the first to the last."""
    if count <= MAX_DIGESTED_ITEMS:
        return range(count)
    return [place * (count - 1) // (SAMPLE_SIZE - 1) for place in range(SAMPLE_SIZE)]


def digest_of(texts: Iterable[str]) -> str:
    """Return a digest of the texts that `text_of()` returns for items."""
    hashed = blake2b(digest_size=16)
    for text in texts:
        encoded = text.encode(errors="backslashreplace")
        hashed.update(b"%d:%b" % (len(encoded), encoded))
    return hashed.hexdigest()


def text_of(item: Any, within: tuple[int, ...] = ()) -> str:
    """Return a text that is the same for equal items in every process; `within` has the ids of the containers."""
    if type(item) in PLAIN:
        return repr(item)
    name = f"{type(item).__module__}.{type(item).__qualname__}"
    parts = None if id(item) in within else _parts(item)
    if parts is not None:
        texts = [text_of(part, (*within, id(item))) for part in parts]
        return f"{name}({', '.join(sorted(texts) if isinstance(item, (Mapping, Set)) else texts)})"
    has_repr = getattr(type(item), "__repr__", None) is not object.__repr__
    # repr() of a queryset runs a query.
    return ADDRESS.sub("", repr(item)) if has_repr and not isinstance(item, QuerySet) else name


def _parts(item: Any) -> Iterable[Any] | None:
    """Return the parts of an item; None if its `repr()` is to be used."""
    if isinstance(item, Model):
        return [item.pk]
    if isinstance(item, Enum):
        return [item.value]
    if isinstance(item, Mapping):
        return list(item.items())
    if isinstance(item, (list, tuple, Set)):
        return item
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        return [getattr(item, field.name, None) for field in dataclasses.fields(item)]
    return None


def is_key(value: object) -> bool:
    """Return True if `key_hash()` takes the value: text, a UUID or a number, but neither a bool nor NaN."""
    if isinstance(value, Decimal):
        return not value.is_nan()
    if isinstance(value, Real):
        return not isinstance(value, bool) and not math.isnan(value)
    return isinstance(value, (str, UUID))


def key_hash(key: Any) -> int:
    """Return a hash of a key. Equal numbers of different types, such as 1 and 1.0, have the same hash."""
    if isinstance(key, str):
        data = b"s" + str.encode(key, errors="surrogatepass")
    elif isinstance(key, UUID):
        data = b"u" + key.bytes
    else:
        data = b"n%d" % hash(key)  # Python does not salt the hash of a number.
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")
