"""Statements that PostgreSQL keeps the plans of: by a session that may be another one the next time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from django.db import DatabaseError

from cloudrun_jobs.locks.base import Grant, Owner
from cloudrun_jobs.locks.database import DatabaseLocks
from cloudrun_jobs.locks.database.prepared import Prepared
from cloudrun_jobs.locks.names import lock_name
from tests.locks.conftest import SETTINGS

OFTEN = 10
TTL = 60.0


@pytest.fixture
def locks(kind: str, request: pytest.FixtureRequest) -> Iterator[DatabaseLocks]:
    backend = DatabaseLocks(SETTINGS, using=request.getfixturevalue(kind))
    yield backend
    backend.close()


def _use(locks: DatabaseLocks) -> None:
    """Take, be refused, renew and release, often."""
    name = lock_name(f"prepared {uuid4()}", SETTINGS)
    for time in range(OFTEN):
        grant = locks.acquire(name, 1, Owner(holder="a", nonce=f"a{time}"), TTL)
        assert isinstance(grant, Grant)
        assert [holder.holder for holder in _refused(locks, name, f"b{time}")] == ["a"]
        assert locks.renew(grant, TTL)
        assert locks.release(grant)


def _refused(locks: DatabaseLocks, name: Any, nonce: str) -> Any:
    return locks.acquire(name, 1, Owner(holder="b", nonce=nonce), TTL)


def _ask(locks: DatabaseLocks, statement: str) -> list[Any]:
    """Ask the session in which the locks' statements are carried out."""
    with locks._connections.lend() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def _plans(locks: DatabaseLocks) -> list[Any]:
    return _ask(locks, "SELECT name FROM pg_prepared_statements WHERE name LIKE 'cloudrun_jobs_%'")


def test_what_comes_often_is_planned_once(locks):
    """The four statements of a lock's life; a job that takes one lock once leaves no plan."""
    grant = locks.acquire(lock_name(f"once {uuid4()}", SETTINGS), 1, Owner(holder="a", nonce="a"), TTL)
    locks.release(grant)
    assert not _plans(locks)

    _use(locks)

    assert len(_plans(locks)) == 4


def test_a_session_that_forgot_its_plans_is_served(locks):
    """As a pooler's is that is reset between clients: the statement is sent whole."""
    _use(locks)
    _ask(locks, "DEALLOCATE ALL")

    _use(locks)

    assert not _plans(locks)


def test_a_session_in_which_another_made_the_plan_is_served(locks):
    """As a pooler's is that others had before: the name is taken."""
    _use(locks)
    prepare = _ask(locks, "SELECT statement FROM pg_prepared_statements WHERE name LIKE 'cloudrun_jobs_%'")
    locks.close()
    for (statement,) in prepare:
        _ask(locks, statement)

    _use(locks)

    assert len(_plans(locks)) == 4


def test_a_plan_whose_table_was_changed_is_given_up(locks):
    """A migration may make a column longer while the locks are in use."""
    _use(locks)
    _ask(locks, "ALTER TABLE cloudrun_jobs_lockslot ALTER COLUMN label TYPE varchar(210)")
    try:
        _use(locks)
    finally:
        _ask(locks, "ALTER TABLE cloudrun_jobs_lockslot ALTER COLUMN label TYPE varchar(200)")


@pytest.mark.parametrize("kind", ["pgbouncer"])
def test_a_pooler_that_changes_sessions_is_no_hindrance(locks, request):
    """Two clients in turn on two sessions: each finds the other's plans, or none of its own."""
    other = DatabaseLocks(SETTINGS, using=request.getfixturevalue("pgbouncer"))
    for _ in range(3):
        _use(locks)
        _use(other)
    other.close()


def test_what_else_goes_wrong_is_told(locks):
    """An error of the statement's own is no reason to send it again."""
    statement = Prepared("SELECT 1 / %(by)s::int")
    with locks._connections._connect()[0].cursor() as cursor:
        for _ in range(OFTEN):
            statement.run(cursor, {"by": 1})
        with pytest.raises(DatabaseError, match="division by zero"):
            statement.run(cursor, {"by": 0})
        statement.run(cursor, {"by": 1})

        assert cursor.fetchall() == [(1,)]
        cursor.db.close()
