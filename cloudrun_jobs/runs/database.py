"""Keeps at it while the database that has the records is away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

from django.db import (
    DEFAULT_DB_ALIAS,
    Error,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    connections,
    router,
    transaction,
)

from cloudrun_jobs.exceptions import RecordTablesMissing, RecordUnavailable
from cloudrun_jobs.models import JobRun

Answer = TypeVar("Answer")

FIRST_WAIT = 0.1
LONGEST_WAIT = 2.0


def database_alias() -> str:
    """Return the name of the database that has the records."""
    return router.db_for_write(JobRun) or DEFAULT_DB_ALIAS


def in_transaction() -> bool:
    """Say whether the caller is in a transaction of that database, or has switched autocommit off."""
    connection = connections[database_alias()]
    return connection.in_atomic_block or (connection.connection is not None and not connection.get_autocommit())


@contextmanager
def savepoint() -> Iterator[None]:
    """Let a statement that the database refuses not spoil the transaction that the block may be in."""
    if not in_transaction():
        yield
        return
    with transaction.atomic(using=database_alias()):
        yield


def rollback_leftover_transaction() -> None:
    """Roll back a transaction that a job began and left open: what is written in it would never be committed."""
    if in_transaction():
        connections[database_alias()].close()
        connections[database_alias()].connect()  # Forgets that there was one, as closing does not.


def with_migration_hint(work: Callable[[], Answer]) -> Answer:
    """Do it; raise `RecordTablesMissing` where that is why it cannot be done."""
    try:
        return work()
    except (OperationalError, ProgrammingError) as error:
        if tables_are_missing():
            words = f"The database {database_alias()!r} has no tables for the records of the runs."
            raise RecordTablesMissing(words, hint=migrate_hint()) from error
        raise


def migrate_hint() -> str:
    return f"Run `manage.py migrate cloudrun_jobs --database {database_alias()}`."


def tables_are_missing() -> bool:
    try:
        return JobRun._meta.db_table not in connections[database_alias()].introspection.table_names()
    except Error:
        return False  # Nobody can say.


def retry_until_available(work: Callable[[], Answer], *, seconds: float) -> Answer:
    """Do it, again and again for so long, each time on a new connection; raise `RecordUnavailable` in the end.

    In a transaction it is done once: what was done before in it would be gone.
    """
    connection, deadline, wait = connections[database_alias()], time.monotonic() + seconds, FIRST_WAIT
    if in_transaction():
        return with_migration_hint(work)
    while True:
        try:
            return with_migration_hint(work)
        except (OperationalError, InterfaceError) as error:
            connection.close()
            if time.monotonic() + wait > deadline:
                words = f"The database {database_alias()!r}, which keeps the records of the runs, did not answer: {error}"
                raise RecordUnavailable(words) from error
        time.sleep(wait)
        wait = min(wait * 2, LONGEST_WAIT)


def insert(row: Any, *, may_conflict: bool = True) -> None:
    """Insert a row, so that a conflict does not spoil the transaction it may be in."""
    with savepoint() if may_conflict else nullcontext():
        row.save(force_insert=True)
    for field in row._meta.concrete_fields:
        # What the server computed is read from it when it is asked for.
        if hasattr(row.__dict__.get(field.attname), "resolve_expression"):
            del row.__dict__[field.attname]
