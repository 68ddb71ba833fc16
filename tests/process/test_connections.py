"""A signal interrupts a query: its result is not read by the next query."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from django.db import connections, transaction

from cloudrun_jobs.exceptions import JobInterrupted
from cloudrun_jobs.execution import interrupts
from cloudrun_jobs.process.deferral import interruptible
from tests.locks.workers import until

# A slow query, and one that counts its executions on the server.
QUERY_SECONDS = 10
SLOW = {
    "postgres": (
        f"SELECT 7 FROM pg_sleep({QUERY_SECONDS})",
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT 7%%'",
    ),
    "mariadb": (
        f"SELECT 7 + SLEEP({QUERY_SECONDS})",
        "SELECT count(*) FROM information_schema.processlist WHERE info LIKE 'SELECT 7%%'",
    ),
}


@pytest.fixture(autouse=True)
def _records() -> None:
    """Replace the fixture that rolls records back."""


@pytest.fixture(params=SLOW)
def database(request: pytest.FixtureRequest, django_db_blocker: Any) -> Iterator[str]:
    alias: str = request.getfixturevalue(request.param)
    with django_db_blocker.unblock():
        yield alias
        connections[alias].close()


def _query(database: str, query: str) -> Any:
    with connections[database].cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchone()[0]


def _interrupt(database: str) -> None:
    """Send SIGTERM once the server runs the slow query."""
    until(lambda: _query(database, SLOW[database][1]))
    connections[database].close()  # This thread's.
    os.kill(os.getpid(), signal.SIGTERM)


def _is_interrupted(database: str) -> None:
    thread, began = threading.Thread(target=_interrupt, args=[database]), time.monotonic()
    thread.start()
    with pytest.raises(JobInterrupted):
        interruptible(partial(_query, database, SLOW[database][0]))
    thread.join()

    assert time.monotonic() - began < QUERY_SECONDS


def test_next_query_gets_its_own_result(database):
    """The job's cleanup and the record of its end use a connection in order."""
    with interrupts.handle_signals():
        _is_interrupted(database)

        assert _query(database, "SELECT 42") == 42


def test_interrupted_transaction_is_over(database):
    """It is rolled back, and later queries use a connection in order."""
    with interrupts.handle_signals():
        with transaction.atomic(using=database):
            _is_interrupted(database)

        assert not connections[database].in_atomic_block
        assert _query(database, "SELECT 42") == 42


def test_idle_connection_stays_open(database):
    """A signal between two queries closes no connection."""
    _query(database, "SELECT 1")
    before = connections[database].connection
    with interrupts.handle_signals(), pytest.raises(JobInterrupted):
        interruptible(partial(os.kill, os.getpid(), signal.SIGTERM))

    assert connections[database].connection is before
