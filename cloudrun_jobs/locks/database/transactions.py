"""Leases that join their holder's transaction, where that keeps everybody else from writing: SQLite's.

On a connection of their own they would wait for the transaction, and it for them. Until it ends nobody else can
take a lock, so no lease in it needs to be renewed.
"""

from __future__ import annotations

from collections.abc import Callable

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from cloudrun_jobs.locks.base import Grant


class TransactionalLeases:
    """The leases that transactions of one database have written, and that nobody else sees yet."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._waiting: dict[Grant, tuple[BaseDatabaseWrapper, Callable[[], None]]] = {}

    @property
    def connection(self) -> BaseDatabaseWrapper | None:
        """The connection on which this thread is in a transaction, if it is in one."""
        connection = connections[self._alias]
        return connection if connection.in_atomic_block else None

    def add(self, grant: Grant, committed: Callable[[], None]) -> None:
        """Note a lease that this thread's transaction has written, and what to do when it commits."""

        def tell() -> None:
            if self.forget(grant):
                committed()

        connection = connections[self._alias]
        self._waiting[grant] = (connection, tell)
        connection.on_commit(tell, robust=True)

    def __contains__(self, grant: Grant) -> bool:
        connection, tell = self._waiting.get(grant, (None, None))
        # Django drops what waits for a commit with the transaction, or savepoint, that is rolled back.
        return connection is not None and any(hook[1] is tell for hook in list(connection.run_on_commit))

    def forget(self, grant: Grant) -> bool:
        """Take the lease for ended, or for like any other; return whether it was noted."""
        return self._waiting.pop(grant, None) is not None
