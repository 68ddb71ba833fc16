"""The share of a task, and the shares that a rerun of failed tasks repeats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID


class Share(NamedTuple):
    """The part of a run's items that one task works on."""

    #: The run whose lists of items are used: the first of a chain of reruns.
    origin: UUID
    #: The number of the share; None for a task without one.
    index: int | None  # type: ignore[assignment]  # hides a tuple's method
    #: The number of shares.
    count: int  # type: ignore[assignment]  # hides a tuple's method


class Shares(NamedTuple):
    """The shares of the first run that a run of its failed tasks repeats."""

    origin: UUID
    count: int  # type: ignore[assignment]  # hides a tuple's method
    #: The share of each task, by index. Tasks beyond them have no share.
    indexes: tuple[int, ...]

    def of_task(self, index: int) -> Share:
        own = self.indexes[index] if index < len(self.indexes) else None
        return Share(self.origin, own, self.count)

    def encode(self) -> dict[str, Any]:
        """Return the value of `JobRun.shares`."""
        return {"origin": str(self.origin), "count": self.count, "indexes": list(self.indexes)}

    @classmethod
    def decode(cls, data: Mapping[str, Any]) -> Shares:
        """Return the shares that `encode()` wrote."""
        return cls(UUID(data["origin"]), data["count"], tuple(data["indexes"]))
