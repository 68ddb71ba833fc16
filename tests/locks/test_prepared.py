"""Prepared statements: psycopg's, on connections that reach one session of PostgreSQL and no other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from django.db import connections

from cloudrun_jobs.locks.base import Grant, Owner
from cloudrun_jobs.locks.database import DatabaseLocks
from cloudrun_jobs.locks.names import lock_name
from tests.locks.conftest import SETTINGS

TTL = 60.0  # Seconds.


@pytest.fixture
def locks(kind: str, request: pytest.FixtureRequest) -> Iterator[DatabaseLocks]:
    backend = DatabaseLocks(SETTINGS, using=request.getfixturevalue(kind))
    yield backend
    backend.close()


def _use_often(locks: DatabaseLocks) -> None:
    """Acquire, be refused, renew and release, often."""
    name = lock_name(f"prepared {uuid4()}", SETTINGS)
    for number in range(10):
        grant = locks.acquire(name, 1, Owner(holder="a", nonce=f"a{number}"), TTL)
        assert isinstance(grant, Grant)
        assert [holder.holder for holder in _refused(locks, name, f"b{number}")] == ["a"]
        assert locks.renew(grant, TTL)
        assert locks.release(grant)


def _refused(locks: DatabaseLocks, name: Any, nonce: str) -> Any:
    return locks.acquire(name, 1, Owner(holder="b", nonce=nonce), TTL)


def _query(locks: DatabaseLocks, statement: str) -> list[Any]:
    """Send a statement to the session that the locks' statements use."""
    with locks._connections.lend() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def _prepared(locks: DatabaseLocks) -> list[Any]:
    query = "SELECT name FROM pg_prepared_statements WHERE statement LIKE '%cloudrun_jobs_lock%'"
    return _query(locks, query)


def test_frequent_statements_are_prepared(locks):
    """The four statements of a lock's life are; a job that takes one lock once prepares nothing."""
    grant = locks.acquire(lock_name(f"once {uuid4()}", SETTINGS), 1, Owner(holder="a", nonce="a"), TTL)
    locks.release(grant)
    assert not _prepared(locks)

    _use_often(locks)

    assert len(_prepared(locks)) >= 4


def test_a_session_without_its_prepared_statements_is_replaced(locks):
    """A statement that the session does not know is repeated on another connection."""
    _use_often(locks)
    with locks._connections.lend() as cursor:
        cursor.db.connection.pgconn.exec_(b"DEALLOCATE ALL")  # Out of psycopg's sight.

    _use_often(locks)


def test_a_plan_made_invalid_by_a_migration_is_replaced(locks):
    """A migration may make a column longer while the locks are in use."""
    _use_often(locks)
    _query(locks, "ALTER TABLE cloudrun_jobs_lockslot ALTER COLUMN label TYPE varchar(210)")
    try:
        _use_often(locks)
    finally:
        _query(locks, "ALTER TABLE cloudrun_jobs_lockslot ALTER COLUMN label TYPE varchar(200)")


@pytest.mark.parametrize("kind", ["pgbouncer"])
def test_nothing_is_prepared_behind_a_pooler(locks, request):
    """Two clients alternate on two sessions, where psycopg would give two statements one name."""
    other = DatabaseLocks(SETTINGS, using=request.getfixturevalue("pgbouncer"))
    for _ in range(3):
        _use_often(locks)
        _use_often(other)

    assert not _prepared(locks)
    other.close()


@pytest.mark.parametrize("threshold", [None, 0])
def test_the_projects_own_setting_wins(locks, monkeypatch, threshold):
    """`prepare_threshold` in OPTIONS of the database switches preparation off, or on from the first use."""
    options = {**connections[locks.using].settings_dict.get("OPTIONS", {}), "prepare_threshold": threshold}
    monkeypatch.setitem(connections[locks.using].settings_dict, "OPTIONS", options)
    _use_often(locks)

    assert bool(_prepared(locks)) is (threshold == 0)
