"""Locks on SQLite in a transaction of the caller's: it is the only one who can write."""

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
from cloudrun_jobs.locks.lease import Lease
from cloudrun_jobs.locks.owner import new_owner
from cloudrun_jobs.locks.requests import SlotRequest
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
def asked(backend: DatabaseLocks) -> SlotRequest:
    return claim(backend, f"joining {uuid4()}")


def claim(backend: DatabaseLocks, name: str) -> SlotRequest:
    return SlotRequest(backend, names.lock_name(name), 1, new_owner())


def held(asked: SlotRequest) -> Lease:
    answer = acquire.try_once(asked)
    assert isinstance(answer, Lease), answer
    return answer


def is_free(asked: SlotRequest) -> bool:
    """Say whether another would get the lock."""
    answer = asked.backend.acquire(asked.name, 1, new_owner(), LEASE)
    return isinstance(answer, Grant) and asked.backend.release(answer)


@pytest.fixture
def in_requests(settings, transactional_db):
    """A project with SQLite in a file and nothing else set, whose requests are transactions."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "local"}
    assert isinstance(current(), DatabaseLocks)


@pytest.mark.usefixtures("in_requests")
def test_a_job_runs_in_a_transaction():
    """It takes its locks though the transaction lets nobody else write, and they are free afterwards."""
    with transaction.atomic():
        first = Command().delay("a")
        second = Command().delay("a")

    assert first.result() == second.result() == RESULT
    assert current().holders("crj1:") == []
    assert Command().delay("a").result() == RESULT


@pytest.mark.usefixtures("in_requests")
def test_a_transaction_that_is_rolled_back_leaves_the_locks_free():
    """As if the job had never run."""
    with transaction.atomic():
        Command().delay("a")
        transaction.set_rollback(True)

    assert not JobRun.objects.exists()
    assert current().holders("crj1:") == []
    assert Command().delay("a").result() == RESULT


def test_a_second_holder_in_the_transaction_is_refused(backend, asked):
    """What the transaction has written counts in it."""
    with transaction.atomic(backend.using):
        lease = held(asked)

        assert not is_free(asked)
        lease.release()
        assert is_free(asked)


def test_a_transaction_may_last_for_longer_than_the_lease(backend, asked):
    """Nobody can take the lock meanwhile; after the commit it is held as any other, and renewed."""
    with transaction.atomic(backend.using):
        lease = held(asked)
        begun = time.monotonic()
        until(lambda: time.monotonic() > begun + 2 * LEASE)
        lease.check()
    first = lease.deadline

    assert not is_free(asked)
    until(lambda: lease.deadline > first)
    lease.check()
    assert lease.release()
    assert is_free(asked)


def test_a_lock_is_lost_with_the_transaction_that_took_it(backend, asked):
    """Its holder learns it with the next renewal."""
    with transaction.atomic(backend.using):
        lease = held(asked)
        transaction.set_rollback(True, backend.using)

    assert is_free(asked)
    assert lease.lost.wait(10)


def test_a_lock_is_lost_with_the_savepoint_that_took_it(backend, asked):
    """Though the transaction around it goes on."""
    with transaction.atomic(backend.using):
        with transaction.atomic(backend.using):
            assert asked.take() is None
            transaction.set_rollback(True, backend.using)

        assert not asked.renew()
        assert is_free(asked)


def test_other_threads_are_not_in_the_transaction(backend, asked):
    """They wait for it like everybody, and are told why in vain."""
    connections[backend.using].settings_dict["OPTIONS"]["timeout"] = 0.1
    errors: list[LockUnavailable] = []

    def ask() -> None:
        with pytest.raises(LockUnavailable, match="written to by others") as caught:
            asked.take()
        errors.append(caught.value)

    with transaction.atomic(backend.using):
        lease = held(claim(backend, f"joining {uuid4()}"))
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(20)
        lease.release()

    assert len(errors) == 1
    connections[backend.using].settings_dict["OPTIONS"].clear()


def test_a_broken_transaction_makes_no_failure_of_a_release(backend, asked):
    """It will be rolled back, and the lock with it: that is no error of its holder's."""
    with transaction.atomic(backend.using):
        lease = held(asked)
        transaction.set_rollback(True, backend.using)

        with pytest.raises(LockUnavailable, match="is broken") as caught:
            lease.release()

        assert isinstance(caught.value.__cause__, TransactionManagementError)
    assert is_free(asked)


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_elsewhere_locks_keep_out_of_transactions(kind, request):
    """Others may write meanwhile, so a rollback takes back no lock."""
    backend = DatabaseLocks(SETTINGS, using=request.getfixturevalue(kind), lease=LEASE)
    asked = claim(backend, f"joining {uuid4()}")
    with transaction.atomic(backend.using):
        lease = held(asked)
        transaction.set_rollback(True, backend.using)

    assert not is_free(asked)
    lease.release()
    backend.close()
    connections[backend.using].close()
