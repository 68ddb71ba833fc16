"""Errors of the run database: statements are retried after transient errors, not after permanent ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import pytest
from django.db import connections, transaction

from cloudrun_jobs.exceptions import RecordTablesMissing, RecordUnavailable
from cloudrun_jobs.execution import deadlines
from cloudrun_jobs.execution.attempt import Attempt
from cloudrun_jobs.models import JobRun, Status, TaskRun
from cloudrun_jobs.signals import run_record_failed
from tests.runs.conftest import Container, begin, request
from tests.servers.proxy import FaultProxy
from tests.servers.routing import records_in
from tests.servers.users import LimitedUser, after, limited_user

OUTAGE = 0.5  # seconds
AT_ONCE = 5.0  # seconds; a wait takes 30 or 60

FAULTS: dict[str, Callable[[LimitedUser, bool], None]] = {
    "read-only": LimitedUser.set_read_only,
    "no connections": lambda user, on: user.set_connections(not on),
    "terminated": lambda user, on: user.terminate() if on else None,
}


@pytest.fixture(params=["postgres", "mariadb"], autouse=True)
def database(request: pytest.FixtureRequest, settings: Any, django_db_blocker: Any) -> Iterator[LimitedUser]:
    """Store the records with a user whose rights can be taken away."""
    alias = request.getfixturevalue(request.param)
    with (
        django_db_blocker.unblock(),
        limited_user(alias) as user,
        records_in(user.alias, settings, django_db_blocker),
    ):
        yield user


@pytest.fixture
def failures() -> Iterator[list[Exception]]:
    """The errors of records that could not be written."""
    seen: list[Exception] = []

    def note(error: Exception, **kwargs: object) -> None:
        seen.append(error)

    run_record_failed.connect(note)
    yield seen
    run_record_failed.disconnect(note)


def outage(user: LimitedUser, fault: str) -> AbstractContextManager[None]:
    FAULTS[fault](user, True)
    return after(OUTAGE, partial(FAULTS[fault], user, False))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_start_waits_for_what_may_pass(database: LimitedUser, fault: str) -> None:
    """The run is claimed once the database accepts writes."""
    run = request()
    with outage(database, fault), begin(run) as attempt:
        assert isinstance(attempt, Attempt)

    run.refresh_from_db()
    assert run.status == Status.SUCCEEDED


@pytest.mark.parametrize("fault", FAULTS)
def test_an_end_waits_for_what_may_pass(database: LimitedUser, fault: str, failures: list[Exception]) -> None:
    """The outcome is written once the database accepts writes."""
    run = request()
    with begin(run):
        ending = outage(database, fault)
        ending.__enter__()
    ending.__exit__(None, None, None)

    run.refresh_from_db()
    assert (run.status, failures) == (Status.SUCCEEDED, [])


def test_an_end_in_an_outage_after_an_open_transaction(database: LimitedUser, failures: list[Exception]) -> None:
    """The transaction that the job left open does not keep the outcome from being written."""
    run = request()
    with begin(run):
        transaction.atomic(database.alias).__enter__()
        JobRun.objects.filter(pk=run.pk).update(reason="left open")
        ending = outage(database, "no connections")
        ending.__enter__()
    ending.__exit__(None, None, None)

    run.refresh_from_db()
    assert (run.status, run.reason, failures) == (Status.SUCCEEDED, "", [])


@pytest.mark.parametrize("fault", ["read-only", "no connections"])
def test_a_long_outage_ends_the_start_with_75(
    database: LimitedUser, fault: str, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry of Cloud Run may find the database working."""
    monkeypatch.setattr(deadlines, "RECORD_START_LIMIT_SECONDS", 0.3)
    FAULTS[fault](database, True)

    assert container.run("echo", "a") == 75


def test_a_missing_permission_ends_the_start_at_once(
    database: LimitedUser, container: Container, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names the database's reason."""
    run = request()
    database.set_writable(False)
    connections[database.alias].ensure_connection()
    started = time.monotonic()

    assert container.run("echo", "a", run_id=str(run.pk)) == 75

    assert time.monotonic() - started < AT_ONCE
    assert "denied" in capsys.readouterr().err


def test_a_missing_permission_ends_the_end_at_once(database: LimitedUser, failures: list[Exception]) -> None:
    """The work is done, so its process does not fail."""
    with begin(request()):
        database.set_writable(False)
        started = time.monotonic()

    assert time.monotonic() - started < AT_ONCE
    (failure,) = failures
    assert isinstance(failure, RecordUnavailable)
    assert "rejects" in str(failure)


def renamed(database: LimitedUser, table: str, new: str) -> None:
    with connections[database.administrator].cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO {new}")


@pytest.fixture
def missing_tables(database: LimitedUser) -> Iterator[Callable[[], None]]:
    """Return a function after which the tables are missing until the test ends."""
    tables = [model._meta.db_table for model in (TaskRun, JobRun)]
    gone: list[str] = []

    def remove() -> None:
        for table in tables:
            renamed(database, table, f"{table}_gone")
            gone.append(table)

    yield remove
    for table in gone:
        renamed(database, f"{table}_gone", table)


def test_missing_tables_end_the_start_at_once(
    missing_tables: Callable[[], None], container: Container, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message says how to create them."""
    missing_tables()
    started = time.monotonic()

    assert container.run("echo", "a") == 75

    assert time.monotonic() - started < AT_ONCE
    assert "migrate cloudrun_jobs" in capsys.readouterr().err


def test_missing_tables_end_the_end_at_once(missing_tables: Callable[[], None], failures: list[Exception]) -> None:
    """The work is done, so its process does not fail."""
    with begin(request()):
        missing_tables()
        started = time.monotonic()

    assert time.monotonic() - started < AT_ONCE
    (failure,) = failures
    assert isinstance(failure, RecordTablesMissing)


def test_a_missing_column_ends_the_start_at_once(
    database: LimitedUser, container: Container, request: pytest.FixtureRequest
) -> None:
    """A version that is deployed before its migrations does not wait for them."""
    table = JobRun._meta.db_table
    with connections[database.administrator].cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME COLUMN reason TO renamed")
    started = time.monotonic()
    try:
        assert container.run("echo", "a") == 75
    finally:
        with connections[database.administrator].cursor() as cursor:
            cursor.execute(f"ALTER TABLE {table} RENAME COLUMN renamed TO reason")

    assert time.monotonic() - started < AT_ONCE


def test_connections_that_fail_to_close_do_not_end_the_wait(
    database: LimitedUser, monkeypatch: pytest.MonkeyPatch, settings: Any, django_db_blocker: Any
) -> None:
    """A driver may raise when it closes a connection that it has lost."""
    proxy = FaultProxy(int(connections.settings[database.alias]["PORT"]))
    alias = f"{database.alias}_{proxy.port}"
    connections.settings[alias] = {**connections.settings[database.alias], "PORT": str(proxy.port)}
    with records_in(alias, settings, django_db_blocker):
        run = request()
        connection = connections[alias]

        def fail() -> None:
            connection.connection = None
            raise RuntimeError("reentrant call")

        monkeypatch.setattr(connection, "_close", fail)
        proxy.set_away(True)
        with after(OUTAGE, lambda: proxy.set_away(False)), begin(run):
            pass
        monkeypatch.undo()
        run.refresh_from_db()
        connections[alias].close()
    proxy.close()

    assert run.status == Status.SUCCEEDED
