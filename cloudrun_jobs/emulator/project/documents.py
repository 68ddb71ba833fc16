"""JSON documents by kind and name, such as policies and service accounts. They survive a restart."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

KINDS = ("policy", "account", "apis", "repository", "image", "role")


@dataclass(slots=True)
class Documents:
    # Called with each change, to persist it. None removes the document.
    save: Callable[[str, str, Any], None] = lambda *_: None
    lock: threading.RLock = field(
        default_factory=threading.RLock
    )  # Held from a read to the write that follows it.
    _values: dict[tuple[str, str], Any] = field(default_factory=dict)

    def get(self, kind: str, name: str) -> Any:
        """Return a document; None if there is none."""
        return self._values.get((kind, name))

    def put(self, kind: str, name: str, value: Any) -> None:
        with self.lock:
            self._values[kind, name] = value
            self.save(kind, name, value)

    def remove(self, kind: str, name: str) -> None:
        with self.lock:
            if self._values.pop((kind, name), None) is not None:
                self.save(kind, name, None)

    def names(self, kind: str, prefix: str = "") -> list[str]:
        with self.lock:
            return sorted(name for each, name in self._values if each == kind and name.startswith(prefix))

    def restore(self, kind: str, name: str, value: Any) -> None:
        """Add a document that was saved by an earlier emulator."""
        self._values[kind, name] = value
