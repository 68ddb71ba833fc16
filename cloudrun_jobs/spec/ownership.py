"""The label on every resource that this package creates in the cloud."""

from __future__ import annotations

import json
from dataclasses import dataclass

PREFIX = "Managed by cloudrun_jobs: "  # For a reader of the console.
SYNC = "sync"
RESERVATION = "reservation"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnershipLabel:
    """The owner of a resource. `fields` are those that are set only because the code declares them."""

    environment: str
    command: str
    kind: str = SYNC  # A RESERVATION is created by reserve(), and sync must not delete it.
    fields: tuple[str, ...] = ()

    def __str__(self) -> str:
        data = {"environment": self.environment, "command": self.command, "kind": self.kind}
        if self.fields:
            data["fields"] = ",".join(self.fields)
        return PREFIX + json.dumps(data)

    @classmethod
    def read(cls, text: str) -> OwnershipLabel | None:
        """Return the label that a text is, or None for any other text."""
        try:
            data = json.loads(text.removeprefix(PREFIX)) if text.startswith(PREFIX) else {}
            fields = tuple(filter(None, data.get("fields", "").split(",")))
            return cls(environment=data["environment"], command=data["command"], kind=data["kind"], fields=fields)
        except (ValueError, KeyError, AttributeError):
            return None
