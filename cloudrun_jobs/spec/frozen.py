"""The base of frozen values that every start of a job needs.

A dataclass would do, but generating its code takes a millisecond of the start-up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn


class Frozen:
    """A value, immutable and equal by its attributes. `__init__()` sets them by `vars(self)`."""

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen: cannot set {name!r}.")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(frozenset(item for item in vars(self).items() if not isinstance(item[1], Mapping)))
