"""Distinguish text that Terraform evaluates from literal text."""

from __future__ import annotations

import re
from typing import Any


class Expression(str):
    """Text in which Terraform evaluates "${...}"."""

    __slots__ = ()


def escaped(value: Any) -> Any:
    """Return a value in which Terraform evaluates only expressions."""
    match value:
        case Expression():
            return str(value)
        case str():
            return re.sub(r"([$%])\{", r"\1\1{", value)
        case dict():
            return {escaped(name): escaped(item) for name, item in value.items()}
        case list() | tuple():
            return [escaped(item) for item in value]
    return value
