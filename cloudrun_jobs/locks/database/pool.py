"""Connections for the locks alone, in autocommit, outside the application's transactions.

A lock acquired in the caller's transaction would be invisible to other processes until the commit, block them for
as long as the job runs, and be undone by a rollback.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

from django.db import Error, connections
from django.db.backends.utils import CursorWrapper
from django.db.utils import load_backend

from cloudrun_jobs.exceptions import LockError, LockUnavailable
from cloudrun_jobs.locks.database.dialects import Dialect
from cloudrun_jobs.locks.database.watchdog import Watchdog
from cloudrun_jobs.process.connections import close
from cloudrun_jobs.process.database_errors import is_transient

REPLY_LIMIT_SECONDS = 5.0  # Longer than `dialects.STATEMENT_LIMIT_SECONDS`: the server's own reply is better.

# Options of the drivers, in seconds and for PostgreSQL milliseconds, so that no statement outlasts a lease.
TIMEOUT_OPTIONS: dict[str, dict[str, Any]] = {
    "postgresql": {"connect_timeout": 5, "tcp_user_timeout": 5000, "keepalives_idle": 5, "keepalives_interval": 2},
    "mysql": {"connect_timeout": 5, "read_timeout": 5},
    "sqlite": {"timeout": 5},
}

USES_BEFORE_PREPARATION = 10  # A job that acquires its locks once does not pay for it.


class ConnectionPool:
    """Connections to one database, each for one thread at a time."""

    def __init__(self, alias: str, dialect: Callable[[], Dialect], *, keep: bool) -> None:
        self._alias = alias
        self._dialect = dialect
        self._keep = keep
        self._idle: deque[tuple[Any, CursorWrapper, int]] = deque()  # With the number of uses.

    @contextmanager
    def lend(self, seconds: float = REPLY_LIMIT_SECONDS) -> Iterator[CursorWrapper]:
        """Yield a cursor on an idle connection or a new one. After an error the connection is closed.

        A connection without a reply for that many seconds is cut.
        """
        try:
            connection, cursor, uses = self._idle.pop()  # Another thread may take the last one at any moment.
        except IndexError:
            connection, cursor, uses = *self._connect(), 0
        try:
            connection.watchdog.start(seconds)
            if uses == USES_BEFORE_PREPARATION:
                self._dialect().prepare_statements(cursor)
            yield cursor
        except BaseException:
            close(connection)
            raise
        connection.watchdog.stop()
        if self._keep:
            self._idle.append((connection, cursor, uses + 1))
        else:
            close(connection)

    def close(self) -> None:
        """Close the idle connections."""
        with suppress(IndexError):
            while True:
                close(self._idle.pop()[0])

    def _connect(self) -> tuple[Any, CursorWrapper]:
        connection = self._new()
        try:
            cursor = connection.cursor()
            self._dialect().prepare(cursor)
        except Error as error:
            close(connection)
            message = f"The database {self._alias!r}, which keeps the locks, accepts no connection: {error}"
            raise (LockUnavailable if is_transient(error) else LockError)(message) from error
        return connection, cursor

    def _new(self) -> Any:
        # Read each time: a test runner changes the database's name.
        settings = copy.deepcopy(connections[self._alias].settings_dict)
        vendor = connections[self._alias].vendor
        given = {name: value for name, value in settings.get("OPTIONS", {}).items() if name != "pool"}
        settings["OPTIONS"] = {**TIMEOUT_OPTIONS.get(vendor, {}), **given}
        if vendor == "postgresql":
            settings["OPTIONS"]["server_side_binding"] = True  # Django's other cursor cannot prepare.
        settings |= {"AUTOCOMMIT": True, "ATOMIC_REQUESTS": False, "CONN_HEALTH_CHECKS": False}
        connection = _watched(load_backend(settings["ENGINE"]).DatabaseWrapper)(settings, self._alias)
        connection.inc_thread_sharing()
        return connection


@cache
def _watched(base: Any) -> Any:
    """Return a subclass of a Django connection, with a `watchdog` once it is connected."""

    class Watched(base):  # type: ignore[misc]
        watchdog: Watchdog | None = None

        def get_new_connection(self, conn_params: Any) -> Any:
            driver = super().get_new_connection(conn_params)
            self.watchdog = Watchdog(driver)
            self.watchdog.start(REPLY_LIMIT_SECONDS)
            return driver

        def close(self) -> None:
            try:
                super().close()
            finally:
                if self.watchdog:
                    self.watchdog.stop()
                self.watchdog = None

    return Watched
