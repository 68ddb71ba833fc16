"""A user of a database server whose rights a test takes away: the server's other users keep theirs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.db import connections

NAME = "worker"


@dataclass(frozen=True)
class LimitedUser:
    """The user, by the alias of the database that it reaches, and the administrator's alias."""

    alias: str
    administrator: str

    @property
    def is_postgres(self) -> bool:
        return connections[self.alias].vendor == "postgresql"

    def set_read_only(self, on: bool) -> None:
        """Make the server read-only, or writable again; a failover to a replica ends the sessions too."""
        if self.is_postgres:
            self._execute(f"ALTER ROLE {NAME} SET default_transaction_read_only = {'on' if on else 'off'}")
        else:
            self._execute(f"SET GLOBAL read_only = {int(on)}")
        if on:
            self.terminate()

    def set_writable(self, on: bool) -> None:
        """Grant, or revoke, the permission to write."""
        verb, preposition = ("GRANT", "TO") if on else ("REVOKE", "FROM")
        tables = "ALL TABLES IN SCHEMA public" if self.is_postgres else "locks.*"
        user = NAME if self.is_postgres else f"{NAME}@'%%'"
        self._execute(f"{verb} INSERT, UPDATE, DELETE ON {tables} {preposition} {user}")
        if not on:
            self.terminate()  # A session of MariaDB keeps its permissions.

    def set_connections(self, allowed: bool) -> None:
        """Let the user connect, or refuse it as one with too many connections; end its sessions."""
        if self.is_postgres:
            self._execute(f"ALTER ROLE {NAME} CONNECTION LIMIT {-1 if allowed else 0}")
        else:
            self._execute(f"ALTER USER {NAME}@'%%' WITH MAX_USER_CONNECTIONS {0 if allowed else -1}")
        if not allowed:
            self.terminate()

    def terminate(self) -> None:
        """End the user's sessions, and wait until they have ended."""
        if self.is_postgres:
            self._execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{NAME}'")
        else:
            self._execute(f"KILL CONNECTION USER {NAME}")

    def restore(self) -> None:
        self.set_read_only(False)
        self.set_writable(True)
        self.set_connections(True)

    def _execute(self, statement: str) -> None:
        with connections[self.administrator].cursor() as cursor:
            cursor.execute(statement, [])
        connections[self.administrator].close()  # A thread's own.

    def create(self) -> None:
        if self.is_postgres:
            self._execute(
                f"DO $$ BEGIN CREATE ROLE {NAME} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
            )
            self._execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {NAME}")
            self._execute(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {NAME}")
        else:
            self._execute(f"CREATE USER IF NOT EXISTS {NAME}@'%%'")
            self._execute(f"GRANT SELECT ON locks.* TO {NAME}@'%%'")
        self.restore()


@contextmanager
def limited_user(administrator: str) -> Iterator[LimitedUser]:
    """Create the user on the server of this alias; its rights are restored when the block ends."""
    alias = f"{administrator}_{NAME}"
    connections.settings[alias] = {**connections.settings[administrator], "USER": NAME}
    user = LimitedUser(alias, administrator)
    user.create()
    try:
        yield user
    finally:
        user.restore()
        connections[alias].close()


@contextmanager
def after(seconds: float, action: object) -> Iterator[None]:
    """Call `action` in a thread after some seconds, at the latest when the block ends."""
    timer = threading.Timer(seconds, action)  # type: ignore[arg-type]
    timer.start()
    try:
        yield
    finally:
        timer.join()
