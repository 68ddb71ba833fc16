"""Retry database work while the database of the run records is unavailable."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from django.db import DEFAULT_DB_ALIAS, DataError, Error, IntegrityError, connections, router, transaction

from cloudrun_jobs.backoff import attempts
from cloudrun_jobs.exceptions import RecordTablesMissing, RecordUnavailable
from cloudrun_jobs.models import JobRun, routing
from cloudrun_jobs.process.connections import close
from cloudrun_jobs.process.database_errors import is_transient

T = TypeVar("T")


def database_alias() -> str:
    """Return the alias of the database that stores the run records."""
    return router.db_for_write(JobRun) or DEFAULT_DB_ALIAS


def in_transaction() -> bool:
    """Return True if the caller is in a transaction of that database, or has switched autocommit off."""
    connection = connections[database_alias()]
    return connection.in_atomic_block or (connection.connection is not None and not connection.get_autocommit())


def savepoint() -> AbstractContextManager[Any]:
    """Return a context manager that keeps the caller's transaction usable if a statement in the block fails."""
    return transaction.atomic(using=database_alias()) if in_transaction() else nullcontext()


def rollback_leftover_transaction() -> None:
    """Roll back a transaction that a job left open: the outcome written in it would never be committed."""
    if in_transaction():
        connection = connections[database_alias()]
        close(connection)
        try:
            with connection.wrap_database_errors:
                connection.connect()  # Resets the transaction's state, which close() keeps.
        except Error:
            close(connection)  # The next statement opens another one.


def with_migration_hint(work: Callable[[], T]) -> T:
    """Return the result of `work`. Raises `RecordTablesMissing` if it fails because the tables do not exist."""
    try:
        return work()
    except (IntegrityError, DataError):
        raise
    except Error as error:
        if not is_transient(error) and tables_are_missing():
            message = f"The database {database_alias()!r} has no tables for the run records."
            raise RecordTablesMissing(message, hint=migrate_hint()) from error
        raise


def migrate_hint() -> str:
    return routing.migrate_hint(JobRun, database_alias())


def tables_are_missing() -> bool:
    try:
        return JobRun._meta.db_table not in connections[database_alias()].introspection.table_names()
    except Error:
        return False  # Unknown.


def retry_until_available(work: Callable[[], T], *, seconds: float) -> T:
    """Return the result of `work`, retried on new connections after transient errors.

    Raises `RecordUnavailable` after `seconds`, and at once if the database rejects the statement. In a transaction
    there is no retry: what the transaction did before would be lost.
    """
    if in_transaction():
        return with_migration_hint(work)
    alias = database_alias()
    for _ in attempts(seconds, initial=0.1, maximum=2.0):
        try:
            return with_migration_hint(work)
        except (IntegrityError, DataError):
            raise
        except Error as error:
            close(connections[alias])
            failure = error
            if not is_transient(error):
                message = f"The run database {alias!r} rejects the statement: {error}"
                hint = f"Check the permissions of its user. {migrate_hint()}"
                raise RecordUnavailable(message, hint=hint) from error
    raise RecordUnavailable(f"The run database {alias!r} is unavailable: {failure}") from failure


def insert(row: Any, *, may_conflict: bool = True) -> None:
    """Insert a row; a conflict leaves the caller's transaction usable."""
    with savepoint() if may_conflict else nullcontext():
        row.save(force_insert=True)
    for field in row._meta.concrete_fields:
        # A value that the server computed is read back on access.
        if hasattr(row.__dict__.get(field.attname), "resolve_expression"):
            del row.__dict__[field.attname]
