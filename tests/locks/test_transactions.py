"""Locks on SQLite in a transaction of the caller, which blocks all other writes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from uuid import uuid4

import pytest
from django.db import connections, transaction
from django.db.transaction import TransactionManagementError

from cloudrun_jobs.exceptions import LockUnavailable
from cloudrun_jobs.locks import acquire, current, names
from cloudrun_jobs.locks.base import Grant
from cloudrun_jobs.locks.database import DatabaseLocks
from cloudrun_jobs.locks.keeper import LeaseKeeper
from cloudrun_jobs.locks.requests import SlotRequest, new_owner
from cloudrun_jobs.models import JobRun
from tests.jobs.management.commands.echo import Command
from tests.locks.conftest import SETTINGS
from tests.locks.workers import until

LEASE = 1.0
RESULT = {"words": ["a"], "partner": None, "note": None}


@pytest.fixture
def backend(sqlite: str) -> Iterator[DatabaseLocks]:
    backend = DatabaseLocks(SETTINGS, using=sqlite, lease=LEASE)
    yield backend
    backend.close()
    connections[sqlite].close()


@pytest.fixture
def lock_request(backend: DatabaseLocks) -> SlotRequest:
    return new_request(backend, f"joining {uuid4()}")


def new_request(backend: DatabaseLocks, name: str) -> SlotRequest:
    return SlotRequest(backend, names.lock_name(name), 1, new_owner())


def held(lock_request: SlotRequest) -> LeaseKeeper:
    answer = acquire.try_once(lock_request)
    assert isinstance(answer, LeaseKeeper), answer
    return answer


def is_free(lock_request: SlotRequest) -> bool:
    """Return True if another owner can acquire the lock."""
    answer = lock_request.backend.acquire(lock_request.name, 1, new_owner(), LEASE)
    return isinstance(answer, Grant) and lock_request.backend.release(answer)


@pytest.fixture
def sqlite_project(settings, transactional_db):
    """A project with SQLite in a file and default settings."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "local"}
    assert isinstance(current(), DatabaseLocks)


@pytest.mark.usefixtures("sqlite_project")
def test_job_runs_in_a_transaction():
    """The job acquires its locks in the transaction, and they are free afterwards."""
    with transaction.atomic():
        first = Command().delay("a")
        second = Command().delay("a")

    assert first.result() == second.result() == RESULT
    assert current().holders("crj1:") == []
    assert Command().delay("a").result() == RESULT


@pytest.mark.usefixtures("sqlite_project")
def test_rollback_leaves_the_locks_free():
    """As if the job had never run."""
    with transaction.atomic():
        Command().delay("a")
        transaction.set_rollback(True)

    assert not JobRun.objects.exists()
    assert current().holders("crj1:") == []
    assert Command().delay("a").result() == RESULT


def test_second_holder_in_the_transaction_is_refused(backend, lock_request):
    """The transaction's own leases count in it."""
    with transaction.atomic(backend.using):
        keeper = held(lock_request)

        assert not is_free(lock_request)
        keeper.release()
        assert is_free(lock_request)


def test_transaction_may_outlast_the_lease(backend, lock_request):
    """The lock stays held in the transaction, and is renewed after the commit."""
    with transaction.atomic(backend.using):
        keeper = held(lock_request)
        begun = time.monotonic()
        until(lambda: time.monotonic() > begun + 2 * LEASE)
        keeper.check()
    first = keeper.deadline

    assert not is_free(lock_request)
    until(lambda: keeper.deadline > first)
    keeper.check()
    assert keeper.release()
    assert is_free(lock_request)


def test_rollback_of_the_transaction_loses_the_lock(backend, lock_request):
    """The next renewal reports the loss."""
    with transaction.atomic(backend.using):
        keeper = held(lock_request)
        transaction.set_rollback(True, backend.using)

    assert is_free(lock_request)
    assert keeper.lost.wait(10)


def test_rollback_of_a_savepoint_loses_the_lock(backend, lock_request):
    """The lock is lost though the transaction goes on."""
    with transaction.atomic(backend.using):
        with transaction.atomic(backend.using):
            assert lock_request.acquire() is None
            transaction.set_rollback(True, backend.using)

        assert not lock_request.renew()
        assert is_free(lock_request)


def test_other_threads_wait_for_the_transaction(backend, lock_request):
    """They raise `LockUnavailable`, with the reason, when SQLite's timeout is over."""
    connections[backend.using].settings_dict["OPTIONS"]["timeout"] = 0.1
    errors: list[LockUnavailable] = []

    def wait() -> None:
        with pytest.raises(LockUnavailable, match="Another transaction blocks writes") as caught:
            lock_request.acquire()
        errors.append(caught.value)

    with transaction.atomic(backend.using):
        keeper = held(new_request(backend, f"joining {uuid4()}"))
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join(20)
        keeper.release()

    assert len(errors) == 1
    connections[backend.using].settings_dict["OPTIONS"].clear()


def test_release_in_a_broken_transaction_is_unavailable(backend, lock_request):
    """The lock is rolled back with the transaction, so the holder has nothing to do."""
    with transaction.atomic(backend.using):
        keeper = held(lock_request)
        transaction.set_rollback(True, backend.using)

        with pytest.raises(LockUnavailable, match="is broken") as caught:
            keeper.release()

        assert isinstance(caught.value.__cause__, TransactionManagementError)
    assert is_free(lock_request)


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_other_databases_keep_locks_out_of_transactions(kind, request):
    """A rollback of the caller's transaction releases no lock."""
    backend = DatabaseLocks(SETTINGS, using=request.getfixturevalue(kind), lease=LEASE)
    lock_request = new_request(backend, f"joining {uuid4()}")
    with transaction.atomic(backend.using):
        keeper = held(lock_request)
        transaction.set_rollback(True, backend.using)

    assert not is_free(lock_request)
    keeper.release()
    backend.close()
    connections[backend.using].close()
