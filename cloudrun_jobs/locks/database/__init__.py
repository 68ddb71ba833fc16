"""Locks in the project's own database: PostgreSQL, MySQL, MariaDB or SQLite.

An acquisition reads the holders of the slots, then takes a slot that looks free, with a statement that checks
again. If that statement never waits, it comes first, unless the lock was held the last time.

The statements use connections of their own, except on SQLite in a transaction of the caller; see `transactions`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, TypeVar

from django import db
from django.core import checks
from django.db import connections, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from django.db.transaction import TransactionManagementError
from django.utils.functional import cached_property

from cloudrun_jobs import conf
from cloudrun_jobs.conf import INLINE_ENVIRONMENTS, Settings
from cloudrun_jobs.exceptions import (
    InvalidSettings,
    LockError,
    LockMisused,
    LockTablesMissing,
    LockUnavailable,
    LockUnknown,
)
from cloudrun_jobs.locks.base import EPOCH, Grant, Holder, Holders, LockBackend, Owner, available_slot
from cloudrun_jobs.locks.database.dialects import DIALECTS, SLOTS, TASKS, Dialect, Row, execute
from cloudrun_jobs.locks.database.pool import REPLY_LIMIT_SECONDS, ConnectionPool
from cloudrun_jobs.locks.database.transactions import TransactionalLeases
from cloudrun_jobs.locks.names import LockName
from cloudrun_jobs.models import LockSlot
from cloudrun_jobs.models.routing import migrate_hint
from cloudrun_jobs.process.database_errors import is_missing_table, is_transient

T = TypeVar("T")

MAX_LOST_RACES = 3  # Attempts to take a slot that looks free before all slots count as held.
RENEWAL_SHARE = 1 / 4  # The fraction of a lease that a renewal may take, so that another one fits in.
MIN_RENEWAL_SECONDS = 0.5


class DatabaseLocks(LockBackend):
    """Keeps locks in the database `using`, or that of the project's routers, over connections of its own."""

    def __init__(self, settings: Settings, *, using: str | None = None, **options: Any) -> None:
        super().__init__(settings, **options)
        self.using = using or router.db_for_write(LockSlot)
        if self.using not in connections:
            where = conf.setting_name("LOCKS", "OPTIONS", "using") if using else "DATABASE_ROUTERS"
            hint = f"Databases: {', '.join(connections)}."
            raise InvalidSettings(f"{where}: no database {self.using!r}.", hint=hint)
        self._held = ""  # The lock that was found held last: the next acquisition reads its holders first.
        # Inline, no connection may stay open: a test database cannot be dropped while it has one.
        keep = settings.environment not in INLINE_ENVIRONMENTS
        self._connections = ConnectionPool(self.using, lambda: self.dialect, keep=keep)
        self._uncommitted = TransactionalLeases(self.using)

    @cached_property
    def dialect(self) -> Dialect:
        """The statements for this server."""
        vendor = connections[self.using].vendor
        if vendor == "unknown":
            message = f"{conf.setting_name('LOCKS')}: DATABASES[{self.using!r}] is empty."
            raise InvalidSettings(
                message, hint="Name another database in DATABASE_ROUTERS, or in OPTIONS 'using'."
            )
        if vendor not in DIALECTS:
            raise InvalidSettings(
                f"{conf.setting_name('LOCKS')}: {vendor} is not supported.",
                hint=f"Use one of {', '.join(DIALECTS)}, or cloudrun_jobs.locks.redis.RedisLocks.",
            )
        return DIALECTS[vendor]()

    def acquire(self, name: LockName, slots: int, owner: Owner, ttl: float) -> Grant | Sequence[Holder]:
        values = _values(name, owner, ttl)
        looks_free = slots == 1 and self.dialect.never_waits and name.key != self._held
        if looks_free and (grant := self._take(values, 0, missing=False)):
            return grant
        rows: list[Row] = []
        for _ in range(MAX_LOST_RACES):
            rows = self._read(name, slots)
            if granted := next((row for row in rows if row.live and row.nonce == owner.nonce), None):
                grant = granted.grant()
                if self.renew(grant, ttl):
                    return grant
                continue
            slot = available_slot({row.slot: row.held_by() for row in rows if row.live}, slots, owner)
            if slot is None:
                break
            missing = slot not in {row.slot for row in rows}
            if grant := self._take(values, slot, missing=missing):
                self._held = ""
                return grant
        else:
            rows = self._read(name, slots)  # Name the process that was faster.
        self._held = name.key
        return Holders(lambda: (row.holder() for row in rows if row.live))

    def renew(self, grant: Grant, ttl: float) -> bool:
        values = _own(grant) | {"ttl": _us(ttl)}
        seconds = max(ttl * RENEWAL_SHARE, MIN_RENEWAL_SECONDS)
        return grant in self._uncommitted or self._changed(self.dialect.renew, values, seconds)

    def release(self, grant: Grant) -> bool:
        self._uncommitted.discard(grant)
        if self._changed(self.dialect.release, _own(grant) | {"receipt": grant.receipt}):
            return True
        return self._run(lambda cursor: _was_released(cursor, grant))

    def complete_task(self, grant: Grant, index: int, count: int) -> bool:
        slot = (_id(grant.lock, grant.slot), grant.token)
        insert = f"INSERT INTO {TASKS} (slot_id, token, task_index) VALUES (%s, %s, %s)"
        with suppress(db.IntegrityError):  # Noted before, and the reply was lost.
            self._run(lambda cursor: cursor.execute(insert, [*slot, index]))
        if self._run(lambda cursor: _count_tasks(cursor, slot)) < count:
            return False
        released = self.release(grant)
        delete = f"DELETE FROM {TASKS} WHERE slot_id = %s AND token <= %s"
        self._run(lambda cursor: cursor.execute(delete, slot))
        return released

    def holders(self, prefix: str) -> Sequence[Holder]:
        rows = self._rows("lock_key LIKE %(keys)s", keys=f"{prefix}%")
        return sorted((row.holder() for row in rows if row.live), key=lambda holder: (holder.label, holder.slot))

    def release_slot(self, lock: str, slot: int, token: int) -> bool:
        rows = self._rows("id = %(id)s", id=_id(lock, slot))
        own = (_own(row.grant()) for row in rows if row.token == token)
        return any(self._changed(self.dialect.take_away, values) for values in own)

    def release_holder(self, prefix: str, holder: str) -> int:
        found = self._rows("holder = %(holder)s AND lock_key LIKE %(keys)s", holder=holder, keys=f"{prefix}%")
        # A server may ignore case and trailing spaces.
        grants = [row.grant() for row in found if row.live and row.owner == holder]
        return sum(self._changed(self.dialect.take_away, _own(grant)) for grant in grants)

    def exists(self, lock: str) -> bool:
        return bool(self._rows("lock_key = %(lock)s", lock=lock))

    def fence(self, grant: Grant, using: str) -> bool:
        if using != self.using:
            raise LockMisused(
                f"The lock is kept in the database {self.using!r}, so it cannot fence writes to {using!r}."
            )
        with connections[using].cursor() as cursor:
            cursor.execute(self.dialect.fence, [_id(grant.lock, grant.slot)])
            row = cursor.fetchone()
        return row is not None and row[0] == grant.token

    def prune(self, older_than: timedelta) -> int:
        age = _us(older_than.total_seconds())

        def work(cursor: CursorWrapper) -> int:
            with transaction.atomic(self.using):
                return self.dialect.prune(cursor, age)

        # On the caller's connection: it may take longer than a statement of a lease may.
        return self._run_in(connections[self.using], work)

    def check(self) -> Iterable[checks.CheckMessage]:
        try:
            self.dialect  # noqa: B018  (raises)
        except InvalidSettings as error:
            yield checks.Error(error.args[0], hint=error.hint, id="cloudrun_jobs.E001")

    def inspect(self) -> Iterable[checks.CheckMessage]:
        connection = connections[self.using]
        with connection.cursor() as cursor:
            missing = SLOTS not in connection.introspection.table_names(cursor)
        if missing:
            yield checks.Warning(
                f"The database {self.using!r} has no tables for the locks, so no job can run.",
                hint=migrate_hint(LockSlot, self.using),
                id="cloudrun_jobs.W021",
            )

    def server_time(self) -> datetime | None:
        return EPOCH + timedelta(microseconds=self._run(lambda cursor: _fetch_value(cursor, self.dialect.now)))

    def close(self) -> None:
        self._connections.close()

    def _take(self, values: dict[str, Any], slot: int, *, missing: bool) -> Grant | None:
        row = {**values, "id": _id(values["lock"], slot), "slot": slot, "missing": missing}
        token = self._run(lambda cursor: self.dialect.try_take(cursor, row))
        if token is None:
            return None
        grant = Grant(lock=values["lock"], slot=slot, nonce=values["nonce"], token=token)
        if self._callers_connection():
            self._uncommitted.add(grant, lambda: self._restart(grant, values["ttl"]))
        return grant

    def _restart(self, grant: Grant, ttl: int) -> None:
        """Restart a lease after the commit: its transaction may have lasted longer."""
        with suppress(LockUnavailable):  # The next renewal reports it.
            self._changed(self.dialect.restart, _own(grant) | {"ttl": ttl})

    def _callers_connection(self) -> BaseDatabaseWrapper | None:
        """Return the caller's connection if the statements have to join its transaction."""
        connection = connections[self.using]
        return connection if self.dialect.has_one_writer and connection.in_atomic_block else None

    def _read(self, name: LockName, slots: int) -> list[Row]:
        if slots == 1:  # The usual case. A search by primary key takes half of the planning.
            return self._run(lambda cursor: _fetch(cursor, self.dialect.read_one, {"id": _id(name.key, 0)}))
        return self._rows("lock_key = %(lock)s AND slot < %(slots)s ORDER BY slot", lock=name.key, slots=slots)

    def _rows(self, condition: str, **values: str | int) -> list[Row]:
        statement = f"{self.dialect.read} WHERE {condition}"
        return self._run(lambda cursor: _fetch(cursor, statement, values))

    def _changed(self, statement: str, values: Mapping[str, Any], seconds: float = REPLY_LIMIT_SECONDS) -> bool:
        return self._run(lambda cursor: execute(cursor, statement, values), seconds) > 0

    def _run(self, statement: Callable[[CursorWrapper], T], seconds: float = REPLY_LIMIT_SECONDS) -> T:
        """Run a statement, and once more on a new connection if the first one failed."""
        seconds = min(seconds, REPLY_LIMIT_SECONDS)
        if connection := self._callers_connection():
            return self._run_in(connection, statement)
        try:
            with self._connections.lend(seconds) as cursor:
                return statement(cursor)
        except db.Error as error:
            self._raise_final(error)
        self._connections.close()  # The idle connections may have failed too.
        try:
            with self._connections.lend(seconds) as cursor:
                return statement(cursor)
        except db.IntegrityError:
            raise
        except (db.Error, LockUnavailable) as error:
            message = f"The database {self.using!r} failed, and may have run the statement: {error}"
            raise LockUnknown(message) from error

    def _run_in(self, connection: BaseDatabaseWrapper, statement: Callable[[CursorWrapper], T]) -> T:
        """Run a statement in the caller's transaction, where it cannot be repeated."""
        try:
            with connection.cursor() as cursor:
                return statement(cursor)
        except TransactionManagementError as error:
            broken = LockUnavailable(f"The transaction that acquired the lock is broken: {error}")
            broken.is_transient = False
            raise broken from error
        except db.Error as error:
            self._raise_final(error)
            raise LockUnavailable(f"The database {self.using!r} failed: {error}") from error

    def _raise_final(self, error: db.Error) -> None:
        """Raise if a new connection would not help."""
        if is_missing_table(error):
            raise LockTablesMissing(
                f"The database {self.using!r} has no tables for the locks.",
                hint=migrate_hint(LockSlot, self.using),
            ) from error
        if isinstance(error, db.IntegrityError):
            raise error
        if not is_transient(error):
            raise LockError(
                f"The database {self.using!r}, which keeps the locks, rejects a statement: {error}"
            ) from error
        if self.dialect.is_busy(error):
            message = f"Another transaction blocks writes to the database {self.using!r}: {error}."
            raise LockUnavailable(message) from error


def _values(name: LockName, owner: Owner, ttl: float) -> dict[str, Any]:
    return {
        "lock": name.key,
        "label": name.label,
        "holder": owner.holder,
        "index": owner.index,
        "attempt": owner.attempt,
        "nonce": owner.nonce,
        "ttl": _us(ttl),
    }


def _fetch(cursor: CursorWrapper, statement: str, values: Mapping[str, Any]) -> list[Row]:
    cursor.execute(statement, values)
    return list(map(Row._make, cursor))


def _fetch_value(cursor: CursorWrapper, expression: str) -> int:
    cursor.execute(f"SELECT {expression}")
    value: int = cursor.fetchone()[0]
    return value


def _count_tasks(cursor: CursorWrapper, slot: tuple[str, int]) -> int:
    cursor.execute(f"SELECT COUNT(*) FROM {TASKS} WHERE slot_id = %s AND token = %s", slot)
    count: int = cursor.fetchone()[0]
    return count


def _was_released(cursor: CursorWrapper, grant: Grant) -> bool:
    cursor.execute(f"SELECT released FROM {SLOTS} WHERE id = %s", [_id(grant.lock, grant.slot)])
    row = cursor.fetchone()
    return row is not None and grant.receipt in row[0]


def _own(grant: Grant) -> dict[str, object]:
    return {"id": _id(grant.lock, grant.slot), "nonce": grant.nonce, "token": grant.token}


def _id(lock: str, slot: int) -> str:
    return f"{lock}:{slot}"


def _us(seconds: float) -> int:
    return round(seconds * 1e6)
