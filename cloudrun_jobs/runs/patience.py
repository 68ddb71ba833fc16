"""Keeps at it while the database that has the records is away."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from django.db import DEFAULT_DB_ALIAS, InterfaceError, OperationalError, connections, router

from ..exceptions import RecordUnavailable
from ..models import JobRun

Answer = TypeVar("Answer")

FIRST_WAIT = 0.1
LONGEST_WAIT = 2.0


def alias() -> str:
    """Return the name of the database that has the records."""
    return router.db_for_write(JobRun) or DEFAULT_DB_ALIAS


def in_transaction() -> bool:
    """Say whether the caller is in a transaction of that database."""
    return connections[alias()].in_atomic_block


def abandon_transaction() -> None:
    """Roll back a transaction that a job began and left open: what is written in it would never be committed."""
    connection = connections[alias()]
    if connection.in_atomic_block:
        connection.close()
        connection.connect()  # Forgets that there was one, as closing does not.


def insist(work: Callable[[], Answer], *, seconds: float) -> Answer:
    """Do it, again and again for so long, each time on a new connection; raise `RecordUnavailable` in the end.

    In a transaction it is done once: what was done before in it would be gone.
    """
    connection, deadline, wait = connections[alias()], time.monotonic() + seconds, FIRST_WAIT
    if connection.in_atomic_block:
        return work()
    if connection.connection is not None and not connection.get_autocommit():
        connection.close()  # The job switched it off, and what is written would never be committed.
    while True:
        try:
            return work()
        except (OperationalError, InterfaceError) as error:
            connection.close()
            if time.monotonic() + wait > deadline:
                words = f"The database {alias()!r}, which keeps the records of the runs, did not answer: {error}"
                raise RecordUnavailable(words) from error
        time.sleep(wait)
        wait = min(wait * 2, LONGEST_WAIT)
