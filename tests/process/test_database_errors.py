"""Errors of the drivers, as Django raises them: transient, permanent, or a missing table."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pymysql.err
import pytest
from django import db
from django.db import connections
from django.db.utils import DatabaseErrorWrapper

from cloudrun_jobs.process.connections import close
from cloudrun_jobs.process.database_errors import (
    error_code,
    is_missing_table,
    is_outdated_schema,
    is_transient,
)
from tests.servers.sql import mariadb_settings, postgres_settings

# By SQLSTATE, also of classes that psycopg has no exception for.
POSTGRES_TRANSIENT = (
    *("08000", "08001", "08003", "08004", "08006", "08007", "08P01"),  # Connections, and pgbouncer's own.
    *("0A000", "26000", "42P05"),  # A prepared statement of before.
    *("25006", "25P01", "25P02", "25P03", "25P04"),  # Read-only; transactions that were ended.
    *("40001", "40003", "40P01", "55000", "55006", "55P03"),
    *("53000", "53100", "53200", "53300", "53400"),  # Disk full, out of memory, too many connections.
    *("57000", "57014", "57P01", "57P02", "57P03", "57P05", "58000", "58030", "58P01", "XX000", "72000"),
)
POSTGRES_PERMANENT = (
    *("22001", "22003", "22021", "22P05", "23502", "23503", "23505", "23514", "28000", "28P01"),
    *("3D000", "3F000", "42501", "42601", "42703", "42704", "42883", "42P01", "42P02", "42P10", "44000"),
)

MYSQL_TRANSIENT = (
    *(3, 5, 1020, 1021, 1026, 1030, 1037, 1038, 1041, 1114),  # Disk or memory is full; an error of the engine.
    *(1040, 1129, 1203, 1226),  # Too many connections.
    *(1043, 1047, 1053, 1077, 1080, 1152, 1158, 1159, 1160, 1161, 1184, 1927),  # Shutdown, Galera, the network.
    *(1205, 1206, 1213, 1317, 1969, 3024, 1290, 1792, 1836, 1180, 1637, 4031),
    *(2002, 2003, 2005, 2006, 2012, 2013, 2014, 2026, 2027, 2055),
)
MYSQL_PERMANENT = (
    *(1044, 1045, 1049, 1054, 1062, 1064, 1142, 1143, 1146, 1227, 1264, 1364, 1366, 1370, 1406, 1451, 1452, 1698),
)


@pytest.fixture(autouse=True)
def _records() -> None:
    """Replace the fixture that allows the default database alone."""


class Driver:
    """Raises a driver's error through Django's wrapper."""

    errors_occurred = False

    def __init__(self, module: object) -> None:
        self.Database = module

    def raised(self, error: Exception) -> db.Error:
        try:
            with DatabaseErrorWrapper(self):
                raise error
        except db.Error as wrapped:
            return wrapped


def postgres_error(state: str) -> db.Error:
    error = psycopg.errors._class_for_state(state)("in the server's language")
    error.sqlstate = state
    return Driver(psycopg).raised(error)


def mysql_error(number: int) -> db.Error:
    try:
        pymysql.err.raise_mysql_exception(b"\xff" + struct.pack("<h", number) + b"#HY000in the server's language")
    except pymysql.err.Error as error:
        return Driver(pymysql.err).raised(error)
    raise AssertionError


@pytest.mark.parametrize("state", POSTGRES_TRANSIENT)
def test_postgres_may_recover(state: str) -> None:
    """A failover, a shutdown or a full disk passes."""
    assert is_transient(postgres_error(state))


@pytest.mark.parametrize("state", POSTGRES_PERMANENT)
def test_postgres_will_not_recover(state: str) -> None:
    """A missing table or permission, or a value that is not accepted, stays so."""
    error = postgres_error(state)

    assert not is_transient(error)
    assert is_missing_table(error) == (state == "42P01")
    assert is_outdated_schema(error) == (state in {"42P01", "42703"})
    assert error_code(error) == state


@pytest.mark.parametrize("number", MYSQL_TRANSIENT)
def test_mysql_may_recover(number: int) -> None:
    """A failover, a shutdown or a full disk passes."""
    assert is_transient(mysql_error(number))


@pytest.mark.parametrize("number", MYSQL_PERMANENT)
def test_mysql_will_not_recover(number: int) -> None:
    """A missing table or permission, or a value that is not accepted, stays so."""
    error = mysql_error(number)

    assert not is_transient(error)
    assert is_missing_table(error) == (number == 1146)
    assert is_outdated_schema(error) == (number in {1146, 1054})
    assert error_code(error) == number


@pytest.mark.parametrize(
    "error",
    [
        db.OperationalError("the connection is closed"),
        db.InterfaceError("connection already closed"),
        db.InterfaceError(0, ""),
        db.InternalError("Packet sequence number wrong - got 1 expected 2"),
        db.OperationalError(),
    ],
)
def test_a_lost_connection_may_be_replaced(error: db.Error) -> None:
    """Drivers report it without a code."""
    assert is_transient(error)


def sqlite_error(path: str | Path, *statements: str) -> db.Error:
    try:
        with closing(sqlite3.connect(path, timeout=0)) as connection:
            for statement in statements:
                connection.execute(statement)
    except sqlite3.Error as error:
        return Driver(sqlite3).raised(error)
    raise AssertionError


def test_sqlite_may_recover(tmp_path: Path) -> None:
    """A busy, full or read-only file is written later."""
    create = "CREATE TABLE full_table (text)"
    fill = "INSERT INTO full_table VALUES (zeroblob(1000000))"
    full = sqlite_error(tmp_path / "full", "PRAGMA max_page_count = 3", create, fill)
    read_only = sqlite_error(tmp_path / "full", "PRAGMA query_only = 1", fill)
    with closing(sqlite3.connect(tmp_path / "full")) as other:
        other.execute("BEGIN IMMEDIATE")
        busy = sqlite_error(tmp_path / "full", fill)
    unopened = sqlite_error(tmp_path, create)

    errors = (full, read_only, busy, unopened)
    assert all(map(is_transient, errors)), [error_code(error) for error in errors]


def test_sqlite_will_not_recover(tmp_path: Path) -> None:
    """A missing table or column, or a file that is no database, stays so."""
    (tmp_path / "text").write_text("text" * 1000)
    table = sqlite_error(":memory:", "SELECT * FROM missing")
    column = sqlite_error(":memory:", "CREATE TABLE a (b)", "SELECT c FROM a")
    no_database = sqlite_error(tmp_path / "text", "SELECT * FROM a")

    assert not any(map(is_transient, (table, column, no_database)))
    assert [is_missing_table(error) for error in (table, column, no_database)] == [True, False, False]
    assert [is_outdated_schema(error) for error in (table, column, no_database)] == [True, True, False]


@pytest.fixture
def unreachable(request: pytest.FixtureRequest) -> Iterator[str]:
    kind, changed = request.param
    settings = {"postgres": postgres_settings, "mariadb": mariadb_settings}[kind](
        request.getfixturevalue(f"{kind}_server").port
    )
    connections.settings["unreachable"] = {
        **connections.settings["default"],
        "OPTIONS": {},
        "TEST": {},
        **settings,
        **changed,
    }
    yield "unreachable"
    close(connections["unreachable"])
    del connections["unreachable"]


@pytest.mark.parametrize(
    ("unreachable", "transient"),
    [
        (("postgres", {"PORT": "1"}), True),
        (("postgres", {"HOST": "name.invalid"}), True),
        (("mariadb", {"PORT": "1"}), True),
        (("mariadb", {"HOST": "name.invalid"}), True),
        (("mariadb", {"USER": "unknown"}), False),
        (("mariadb", {"PASSWORD": "wrong"}), False),
        (("mariadb", {"NAME": "unknown"}), False),
    ],
    indirect=["unreachable"],
)
def test_connections_that_servers_refuse(unreachable: str, transient: bool, django_db_blocker: object) -> None:
    """A server that does not answer may do so later; one that rejects the user or the database will not."""
    with django_db_blocker.unblock(), pytest.raises(db.Error) as caught:  # type: ignore[attr-defined]
        connections[unreachable].ensure_connection()

    assert is_transient(caught.value) == transient, repr(caught.value)
