"""Leases that join their holder's transaction, where a transaction blocks all other writes: on SQLite.

On their own connection they would deadlock with the transaction. No other process can acquire a
lock until it ends, so a lease in it needs no renewal.
"""

from __future__ import annotations

from collections.abc import Callable

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from cloudrun_jobs.locks.base import Grant


class TransactionalLeases:
    """The leases that transactions of one database have written and not committed."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._uncommitted: dict[Grant, tuple[BaseDatabaseWrapper, Callable[[], None]]] = {}

    def add(self, grant: Grant, on_commit: Callable[[], None]) -> None:
        """Add a lease of this thread's transaction, and what to do after the commit."""

        def commit() -> None:
            if self.discard(grant):
                on_commit()

        connection = connections[self._alias]
        self._uncommitted[grant] = (connection, commit)
        connection.on_commit(commit, robust=True)

    def __contains__(self, grant: Grant) -> bool:
        connection, commit = self._uncommitted.get(grant, (None, None))
        # Django drops the hooks of a transaction, or savepoint, that is rolled back.
        return connection is not None and any(hook[1] is commit for hook in list(connection.run_on_commit))

    def discard(self, grant: Grant) -> bool:
        """Remove a lease that is committed or released; return False if it was not there."""
        return self._uncommitted.pop(grant, None) is not None
