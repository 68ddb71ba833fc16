"""A signal breaks off a question to a database: the answer is not taken for that to the next question."""

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

# A question whose answer takes long, and how to see that the server works on it.
LONG = 10
SLOW = {
    "postgres": (
        f"SELECT 7 FROM pg_sleep({LONG})",
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT 7%%'",
    ),
    "mariadb": (
        f"SELECT 7 + SLEEP({LONG})",
        "SELECT count(*) FROM information_schema.processlist WHERE info LIKE 'SELECT 7%%'",
    ),
}


@pytest.fixture(autouse=True)
def _records() -> None:
    """Nothing here is rolled back, or recorded."""


@pytest.fixture(params=SLOW)
def database(request: pytest.FixtureRequest, django_db_blocker: Any) -> Iterator[str]:
    alias: str = request.getfixturevalue(request.param)
    with django_db_blocker.unblock():
        yield alias
        connections[alias].close()


def _ask(database: str, question: str) -> Any:
    with connections[database].cursor() as cursor:
        cursor.execute(question)
        return cursor.fetchone()[0]


def _interrupt(database: str) -> None:
    """Send SIGTERM once the server works on the slow question."""
    until(lambda: _ask(database, SLOW[database][1]))
    connections[database].close()  # This thread's.
    os.kill(os.getpid(), signal.SIGTERM)


def _is_interrupted(database: str) -> None:
    thread, began = threading.Thread(target=_interrupt, args=[database]), time.monotonic()
    thread.start()
    with pytest.raises(JobInterrupted):
        interruptible(partial(_ask, database, SLOW[database][0]))
    thread.join()

    assert time.monotonic() - began < LONG


def test_the_next_question_gets_its_own_answer(database):
    """In the job's own cleaning up, and when its end is recorded."""
    with interrupts.handle_signals():
        _is_interrupted(database)

        assert _ask(database, "SELECT 42") == 42


def test_a_transaction_that_was_broken_off_is_over(database):
    """It is rolled back, and what comes after it finds a connection in order."""
    with interrupts.handle_signals():
        with transaction.atomic(using=database):
            _is_interrupted(database)

        assert not connections[database].in_atomic_block
        assert _ask(database, "SELECT 42") == 42


def test_a_connection_that_nobody_was_asking_stays(database):
    """The signal came between two questions."""
    _ask(database, "SELECT 1")
    before = connections[database].connection
    with interrupts.handle_signals(), pytest.raises(JobInterrupted):
        interruptible(partial(os.kill, os.getpid(), signal.SIGTERM))

    assert connections[database].connection is before
