"""The statements, in the dialects of the servers. One statement decides whether a slot may be taken.

`{now}` is the server's clock in microseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

from django.db import Error, OperationalError
from django.db.backends.utils import CursorWrapper

from cloudrun_jobs.locks.base import Grant, Holder, Owner
from cloudrun_jobs.models import LockSlot, LockTask, LockToken
from cloudrun_jobs.process.database_errors import error_code

SLOTS, TOKENS, TASKS = (model._meta.db_table for model in (LockSlot, LockToken, LockTask))

COLUMNS = "id, lock_key, slot, label, holder, task_index, attempt, nonce, token"
TAKEABLE = (
    f"({SLOTS}.expires_us <= {{now}} OR "
    f"({SLOTS}.holder = {{holder}} AND {SLOTS}.task_index = {{index}} AND {SLOTS}.attempt < {{attempt}}))"
)
SAME = "WHERE id = %(id)s AND nonce = %(nonce)s AND token = %(token)s"
OWN = f"{SAME} AND expires_us > {{now}}"

PREPARE_THRESHOLD = 3  # Executions before psycopg prepares a statement: planning takes longer than running it.
STATEMENT_LIMIT_SECONDS = 4  # Of the server, on PostgreSQL and MariaDB.
LOCK_WAIT_SECONDS = 2  # For a fenced transaction.


def execute(cursor: CursorWrapper, statement: str, values: Mapping[str, Any]) -> int:
    """Execute a statement; return the number of rows that it changed."""
    cursor.execute(statement, values)
    changed: int = cursor.rowcount
    return changed


class Row(NamedTuple):
    """A slot, with the columns of `Dialect.read` in their order."""

    lock: str
    slot: int
    label: str
    owner: str
    task_index: int
    attempt: int
    nonce: str
    token: int
    acquired_us: int
    expires_us: int
    now_us: int

    @property
    def live(self) -> bool:
        """True if the lease had not ended when the server read it."""
        return self.expires_us > self.now_us

    def held_by(self) -> Owner:
        return Owner(holder=self.owner, nonce=self.nonce, index=self.task_index, attempt=self.attempt)

    def grant(self) -> Grant:
        return Grant(lock=self.lock, slot=self.slot, nonce=self.nonce, token=self.token)

    def holder(self) -> Holder:
        slot = {"lock": self.lock, "label": self.label, "slot": self.slot, "token": self.token}
        return Holder.of(self.held_by(), self.acquired_us, self.expires_us, **slot)


class Dialect:
    """The statements that all servers share."""

    now: ClassVar[str]
    share: ClassVar[str] = "FOR SHARE"  # Keeps a row from being changed until the transaction ends.
    lock_conflicts: ClassVar[frozenset[object]] = frozenset()  # Error codes.
    released: ClassVar[str] = "%(receipt)s || released"  # The receipts of a slot's releases, the newest first.

    # Does an attempt to take a held slot return without waiting? Then it may come before reading the holders.
    never_waits: ClassVar[bool] = False

    # Does a transaction that has written block all other writes, also to other rows?
    has_one_writer: ClassVar[bool] = False

    def __init__(self) -> None:
        self.read = self._sql(
            "SELECT lock_key, slot, label, holder, task_index, attempt, nonce, token, acquired_us, expires_us, "
            f"{{now}} FROM {SLOTS}"
        )
        self.read_one = self._sql(f"{self.read} WHERE id = %(id)s")
        self.renew = self._sql(f"UPDATE {SLOTS} SET expires_us = {{now}} + %(ttl)s {OWN}")
        self.restart = self._sql(f"UPDATE {SLOTS} SET expires_us = {{now}} + %(ttl)s {SAME}")
        self.release = self._sql(
            f"UPDATE {SLOTS} SET expires_us = {{now}}, released = SUBSTR({self.released}, 1, 1000) {OWN}"
        )
        self.take_away = self._sql(f"UPDATE {SLOTS} SET expires_us = {{now}} {OWN}")
        # A new slot starts with the clock's token: one that is ahead of the clock has to stay.
        self._old = self._sql(f"{SLOTS}.expires_us < {{now}} - %(age)s AND {SLOTS}.token < {{now}} - %(age)s")
        self._prune_tasks = (
            f"DELETE FROM {TASKS} WHERE NOT EXISTS "
            f"(SELECT 1 FROM {SLOTS} s WHERE s.id = {TASKS}.slot_id AND s.token = {TASKS}.token)"
        )
        self.fence = f"SELECT token FROM {TOKENS} WHERE id = %s {self.share}"

    def prepare(self, cursor: CursorWrapper) -> None:
        """Set up a new connection."""

    def prepare_statements(self, cursor: CursorWrapper) -> None:
        """Let the driver of a connection that is used often prepare its statements, if it can."""

    def take(self, cursor: CursorWrapper, row: dict[str, Any]) -> int | None:
        """Take a slot and return its new token, or None if it has another holder."""
        raise NotImplementedError

    def try_take(self, cursor: CursorWrapper, row: dict[str, Any]) -> int | None:
        """Take a slot like `take()`, or return None if other transactions block it."""
        try:
            return self.take(cursor, row)
        except OperationalError as error:
            if error_code(error) in self.lock_conflicts:
                return None  # With a fenced transaction of the holder, or with a faster process.
            raise

    def prune(self, cursor: CursorWrapper, age: int) -> int:
        """Delete slots that were not held for this many microseconds; return their number."""
        deleted = self.prune_slots(cursor, {"age": age})
        cursor.execute(self._prune_tasks)
        return deleted

    def prune_slots(self, cursor: CursorWrapper, values: dict[str, int]) -> int:
        """Delete slots together with their tokens."""
        raise NotImplementedError

    def is_busy(self, error: Error) -> bool:
        """Return True if the server did nothing, because of another writer."""
        return False

    def _sql(self, statement: str) -> str:
        return statement.replace("{now}", self.now)


class PostgreSQL(Dialect):
    """One statement for slot and token. It relies on no setting of the session: a pooler may change sessions."""

    # EXTRACT would count in decimals, which takes longer than to find the row. A double is good to a microsecond.
    now = "(date_part('epoch', clock_timestamp()) * 1000000)::bigint"
    lock_conflicts = frozenset({"55P03", "40P01", "40001"})  # A lock timeout, a deadlock, a conflict.
    never_waits = True

    def __init__(self) -> None:
        super().__init__()
        takeable = TAKEABLE.format(now=self.now, holder="%(holder)s", index="%(index)s", attempt="%(attempt)s")
        # The wait for a fenced transaction must be short, and only the transaction's own setting passes a pooler.
        bounded = f"WITH bounded AS MATERIALIZED (SELECT set_config('lock_timeout', '{LOCK_WAIT_SECONDS}s', true))"
        self._take = self._sql(f"""
            {bounded}, taken AS (
                UPDATE {SLOTS} SET label = %(label)s, holder = %(holder)s, task_index = %(index)s,
                    attempt = %(attempt)s, nonce = %(nonce)s, token = GREATEST(token + 1, {{now}}),
                    acquired_us = {{now}}, expires_us = {{now}} + %(ttl)s
                FROM bounded WHERE id = %(id)s AND {takeable} RETURNING id, token
            )
            UPDATE {TOKENS} SET token = taken.token FROM taken WHERE {TOKENS}.id = taken.id
            RETURNING taken.token""")
        self._make = self._sql(f"""
            {bounded}, made AS (
                INSERT INTO {SLOTS} ({COLUMNS}, acquired_us, expires_us)
                SELECT %(id)s, %(lock)s, %(slot)s, %(label)s, %(holder)s, %(index)s, %(attempt)s, %(nonce)s,
                    {{now}}, {{now}}, {{now}} + %(ttl)s FROM bounded
                ON CONFLICT (id) DO NOTHING RETURNING id, token
            )
            INSERT INTO {TOKENS} (id, token) SELECT id, token FROM made RETURNING token""")

    def prepare(self, cursor: CursorWrapper) -> None:
        # Not behind a pooler, whose process ids are made up: other clients would reuse the session.
        limit = "SELECT set_config('statement_timeout', %s, false) WHERE pg_backend_pid() = %s"
        cursor.execute(limit, [f"{STATEMENT_LIMIT_SECONDS}s", cursor.db.connection.info.backend_pid])

    def prepare_statements(self, cursor: CursorWrapper) -> None:
        driver = cursor.db.connection
        # psycopg2 has no preparation; the project's own setting is in force already.
        if not hasattr(driver, "prepare_threshold") or "prepare_threshold" in cursor.db.settings_dict["OPTIONS"]:
            return
        # A pooler may send each statement to another session, where psycopg's name for it stands for another one.
        # A pooler is detected by the process id, which it makes up for its clients.
        cursor.execute("SELECT pg_backend_pid()")
        if cursor.fetchone()[0] == driver.info.backend_pid:
            driver.prepare_threshold = PREPARE_THRESHOLD

    def take(self, cursor: CursorWrapper, row: dict[str, Any]) -> int | None:
        cursor.execute(self._make if row["missing"] else self._take, row)
        taken = cursor.fetchone()
        return taken[0] if taken else None

    def prune_slots(self, cursor: CursorWrapper, values: dict[str, int]) -> int:
        delete = (
            f"WITH deleted AS (DELETE FROM {SLOTS} WHERE {self._old} RETURNING id) "
            f"DELETE FROM {TOKENS} USING deleted WHERE {TOKENS}.id = deleted.id"
        )
        return execute(cursor, delete, values)


class MySQL(Dialect):
    """One update of both tables. Missing rows are inserted before it, as free ones."""

    # The time of the statement's start: a wait for a row makes a lease shorter, never longer.
    now = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"
    share = "LOCK IN SHARE MODE"  # MariaDB has no FOR SHARE.
    lock_conflicts = frozenset({1205, 1213})  # A lock wait timeout, a deadlock.
    released = "CONCAT(%(receipt)s, released)"

    def __init__(self) -> None:
        super().__init__()
        takeable = TAKEABLE.format(now=self.now, holder="%(holder)s", index="%(index)s", attempt="%(attempt)s")
        self._make_slot = f"""
            INSERT IGNORE INTO {SLOTS} ({COLUMNS}, acquired_us, expires_us)
            VALUES (%(id)s, %(lock)s, %(slot)s, '', '', 0, 0, '', 0, 0, 0)"""
        self._make_token = f"INSERT IGNORE INTO {TOKENS} (id, token) VALUES (%(id)s, 0)"
        self._take = self._sql(f"""
            UPDATE {SLOTS} JOIN {TOKENS} ON {TOKENS}.id = {SLOTS}.id
            SET label = %(label)s, holder = %(holder)s, task_index = %(index)s, attempt = %(attempt)s,
                nonce = %(nonce)s, acquired_us = {{now}}, expires_us = {{now}} + %(ttl)s,
                {SLOTS}.token = LAST_INSERT_ID(GREATEST({SLOTS}.token + 1, {{now}})),
                {TOKENS}.token = GREATEST({TOKENS}.token + 1, {{now}})
            WHERE {SLOTS}.id = %(id)s AND {takeable}""")

    def prepare(self, cursor: CursorWrapper) -> None:
        limit = STATEMENT_LIMIT_SECONDS
        # MySQL has no limit for statements that write, and ignores the comment.
        cursor.execute(
            f"SET SESSION innodb_lock_wait_timeout = {LOCK_WAIT_SECONDS}, lock_wait_timeout = {limit} "
            f"/*M! , max_statement_time = {limit} */"
        )

    def take(self, cursor: CursorWrapper, row: dict[str, Any]) -> int | None:
        if row["missing"]:
            cursor.execute(self._make_slot, row)
            cursor.execute(self._make_token, row)
        cursor.execute(self._take, row)
        return cursor.lastrowid if cursor.rowcount else None

    def prune_slots(self, cursor: CursorWrapper, values: dict[str, int]) -> int:
        both = f"{SLOTS} JOIN {TOKENS} ON {TOKENS}.id = {SLOTS}.id"
        deleted = execute(cursor, f"DELETE {SLOTS}, {TOKENS} FROM {both} WHERE {self._old}", values)
        return deleted // 2  # It counts the rows of both tables.


class SQLite(Dialect):
    """A transaction that writes from its start: there is one writer at a time in any case."""

    now = "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"
    share = ""  # A reader has a snapshot; a write after one of another session fails.
    has_one_writer = True

    def __init__(self) -> None:
        super().__init__()
        takeable = TAKEABLE.format(
            now=self.now, holder="excluded.holder", index="excluded.task_index", attempt="excluded.attempt"
        )
        self._take = self._sql(f"""
            INSERT INTO {SLOTS} ({COLUMNS}, acquired_us, expires_us)
            VALUES (%(id)s, %(lock)s, %(slot)s, %(label)s, %(holder)s, %(index)s, %(attempt)s, %(nonce)s,
                {{now}}, {{now}}, {{now}} + %(ttl)s)
            ON CONFLICT (id) DO UPDATE SET label = excluded.label, holder = excluded.holder,
                task_index = excluded.task_index, attempt = excluded.attempt, nonce = excluded.nonce,
                token = max({SLOTS}.token + 1, excluded.token),
                acquired_us = excluded.acquired_us, expires_us = excluded.expires_us
            WHERE {takeable} RETURNING token""")
        self._note = f"INSERT OR REPLACE INTO {TOKENS} (id, token) VALUES (%(id)s, %(token)s)"

    def take(self, cursor: CursorWrapper, row: dict[str, Any]) -> int | None:
        with _one_transaction(cursor):
            cursor.execute(self._take, row)
            taken = cursor.fetchone()
            if taken:
                cursor.execute(self._note, {**row, "token": taken[0]})
        return taken[0] if taken else None

    def prune_slots(self, cursor: CursorWrapper, values: dict[str, int]) -> int:
        deleted = execute(cursor, f"DELETE FROM {SLOTS} WHERE {self._old}", values)
        cursor.execute(f"DELETE FROM {TOKENS} WHERE id NOT IN (SELECT id FROM {SLOTS})")
        return deleted

    def is_busy(self, error: Error) -> bool:
        return "is locked" in str(error)


@contextmanager
def _one_transaction(cursor: CursorWrapper) -> Iterator[None]:
    """Run statements in one transaction. After an error the connection is closed."""
    if cursor.db.in_atomic_block:
        yield
        return
    cursor.execute("BEGIN IMMEDIATE")
    yield
    cursor.execute("COMMIT")


DIALECTS: dict[str, type[Dialect]] = {"postgresql": PostgreSQL, "mysql": MySQL, "sqlite": SQLite}
