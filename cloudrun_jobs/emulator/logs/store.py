"""Store log entries, oldest first, up to a maximum number."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from cloudrun_jobs.emulator.clock import write_timestamp
from cloudrun_jobs.emulator.logs.fields import Entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudrun_jobs.emulator.clock import Clock

__all__ = ["Entry", "LogStore"]

MAX_ENTRIES = 50_000


class LogStore:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._entries: deque[Any] = deque(maxlen=MAX_ENTRIES)
        self._deleted: dict[str, Any] = {}  # The time of deletion by the name of the log.
        self._listeners: set[Callable[[Any], None]] = set()

    def add(self, entry: Any) -> None:
        """Store an entry, adding a timestamp and an id if it has none."""
        now = self._clock.now()
        with self._lock:
            write_timestamp(entry.receive_timestamp, now)
            if not entry.HasField("timestamp"):
                write_timestamp(entry.timestamp, now)
            if not entry.insert_id:
                entry.insert_id = f"emulator-{next(self._ids):012d}"
            deleted_at = self._deleted.get(entry.log_name)
            if deleted_at is not None and entry.timestamp.ToDatetime(now.tzinfo) < deleted_at:
                return
            self._entries.append(entry)
            for listener in self._listeners:
                listener(entry)

    def all(self) -> list[Any]:
        with self._lock:
            return list(self._entries)

    def delete(self, log_name: str) -> bool:
        """Drop the entries of a log, also those that arrive later with an earlier time; return False if none."""
        with self._lock:
            kept = [entry for entry in self._entries if entry.log_name != log_name]
            if len(kept) == len(self._entries):
                return False
            self._entries = deque(kept, MAX_ENTRIES)
            self._deleted[log_name] = self._clock.now()
            return True

    def listen(self, listener: Callable[[Any], None]) -> None:
        """Call a function with every entry from now on, while the store is locked."""
        with self._lock:
            self._listeners.add(listener)

    def unlisten(self, listener: Callable[[Any], None]) -> None:
        with self._lock:
            self._listeners.discard(listener)
