"""The mark on what this package makes in the cloud, by which it knows it again."""

from __future__ import annotations

import json
from dataclasses import dataclass

PREFIX = "Managed by cloudrun_jobs: "  # Read by people who wonder where an entry comes from.
SYNC = "sync"
RESERVATION = "reservation"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnershipLabel:
    """Whose it is. `fields` are those that it was given only because the code declared them."""

    environment: str
    command: str
    kind: str = SYNC  # A RESERVATION is made by reserve(), and not sync's to delete.
    fields: tuple[str, ...] = ()

    def __str__(self) -> str:
        data = {"environment": self.environment, "command": self.command, "kind": self.kind}
        if self.fields:
            data["fields"] = ",".join(self.fields)
        return PREFIX + json.dumps(data)

    @classmethod
    def read(cls, text: str) -> OwnershipLabel | None:
        """Return the mark that a text is, or None for what somebody else wrote."""
        try:
            data = json.loads(text.removeprefix(PREFIX)) if text.startswith(PREFIX) else {}
            fields = tuple(filter(None, data.get("fields", "").split(",")))
            return cls(environment=data["environment"], command=data["command"], kind=data["kind"], fields=fields)
        except (ValueError, KeyError, AttributeError):
            return None
