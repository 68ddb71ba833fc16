"""Store serialised messages in a SQLite file that survives a restart."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING, Any

from cloudrun_jobs.emulator.config import InvalidConfiguration

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCHEMA = "CREATE TABLE IF NOT EXISTS messages (name TEXT PRIMARY KEY, kind TEXT NOT NULL, body BLOB NOT NULL)"


class State:
    """Messages by name, in the order in which they were first saved."""

    def __init__(self, directory: Path) -> None:
        self._lock = threading.Lock()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._database = _open(directory / "emulator.sqlite3")
        except (OSError, sqlite3.Error) as error:
            raise InvalidConfiguration(
                f"expected a directory for the state at {str(directory)!r} that no other emulator uses: {error}"
            ) from error

    def save(self, kind: str, name: str, body: bytes) -> None:
        with self._lock:
            self._database.execute(
                "INSERT INTO messages VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET body = excluded.body",
                (name, kind, body),
            )

    def remove(self, name: str) -> None:
        with self._lock:
            self._database.execute("DELETE FROM messages WHERE name = ?", (name,))

    def load(self, kind: str) -> Iterator[Any]:
        with self._lock:
            query = "SELECT body FROM messages WHERE kind = ? ORDER BY rowid"
            rows = self._database.execute(query, (kind,)).fetchall()
        return (body for (body,) in rows)

    def close(self) -> None:
        with self._lock:
            self._database.close()


def _open(path: Path) -> sqlite3.Connection:
    path.touch(0o600)  # It contains the values of secrets. SQLite gives its other files the same mode.
    path.chmod(0o600)
    database = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=0.5)
    try:
        # One emulator at a time: a second one would mark the running executions of the first as interrupted.
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        # The file must survive a crash of this process, not of the machine.
        database.execute("PRAGMA synchronous = OFF")
        database.execute(SCHEMA)
    except sqlite3.Error:
        database.close()
        raise
    return database
