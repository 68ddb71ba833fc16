"""Close database connections that an exception from a signal handler interrupts in the middle of a query.

The query was sent but its result was not read. The next query on that connection would read it with PyMySQL, and
fail with psycopg. Django opens another connection when it needs one.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import suppress

from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from django.db.utils import DatabaseErrorWrapper


def close_connections_in_use() -> None:
    """Close the connections that are on the stack. For signal handlers that are about to raise."""
    for connection in _in_use():
        # SQLite returns whole results.
        if connection.vendor != "sqlite":
            close(connection)


def close(connection: BaseDatabaseWrapper) -> None:
    """Close a connection that may have failed. Django opens another one even if this raises an error."""
    # PyMySQL cannot close a connection that it is reading. Django drops it, so it is closed later.
    with suppress(Error, RuntimeError):
        connection.close()


def _in_use() -> Iterator[BaseDatabaseWrapper]:
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("django.db."):
            match frame.f_locals.get("self"):
                case BaseDatabaseWrapper() as connection:
                    yield connection
                case CursorWrapper() as cursor:
                    yield cursor.db
                case DatabaseErrorWrapper() as errors:
                    yield errors.wrapper  # type: ignore[attr-defined]  # missing in the stubs
        frame = frame.f_back
