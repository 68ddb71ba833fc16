"""Items of all types."""

from __future__ import annotations

import dataclasses
from datetime import date
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

from tests.jobs.models import Author


class Colour(Enum):
    RED = 1


@dataclasses.dataclass
class Point:
    x: Any
    tags: frozenset[str]


class Plain:
    pass


ITEMS: list[Any] = [
    *(None, True, 1, 1.5, "text", "\ud800", b"x", Decimal("1.50"), UUID(int=1), date(2026, 1, 1), Path("a")),
    *(Colour.RED, Point(1, frozenset("abcdef")), {"b": {"x", "y", "z"}, "a": 1}, ("a", [1]), range(3)),
    *(Plain(), [Plain()], len, Plain, Author(pk=3, name="Ada"), Author.objects.all()),
]
