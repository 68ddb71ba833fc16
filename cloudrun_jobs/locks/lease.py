"""The handle on a held lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from django.db import transaction

from cloudrun_jobs import environ

if TYPE_CHECKING:
    from cloudrun_jobs.locks.keeper import LeaseKeeper


class Lease:
    """A held lock, renewed in the background.

    The lease is lost when the server says so, or when no renewal was confirmed for seven eighths of it. All
    members may be used in any thread of the process.
    """

    def __init__(self, keeper: LeaseKeeper) -> None:
        #: The lock's name.
        self.name = keeper.name
        #: The fencing token. It increases with each holder, so a service can reject writes of an earlier one.
        self.token = keeper.request.grant.token
        #: A `threading.Event` that is set when the lease is lost.
        self.lost = keeper.lost
        self._keeper = keeper

    def __repr__(self) -> str:
        return f"<Lease {self.name!r}, token {self.token}>"

    def check(self) -> None:
        """Raise `LeaseLost` unless the lock is held. Sends no request, so it costs nothing."""
        self._keeper.check()

    def idempotency_key(self, step: str) -> str:
        """Return a key that is the same in each attempt of this work, for services that take such keys."""
        task = environ.current_task()
        if task is None:
            return f"{self.name}:{self.token}:{step}"
        return f"{task.run_id or task.execution}:{task.index}:{step}"

    @contextmanager
    def transaction(self, using: str = "default") -> Iterator[None]:
        """Open a transaction that only the lock's holder can commit.

        Raises `LeaseLost` if the lock has another holder. No process can acquire the lock until the transaction
        ends, so keep it short. The lock must be kept in the database `using`.
        """
        with transaction.atomic(using):
            self._keeper.fence(using)
            yield
