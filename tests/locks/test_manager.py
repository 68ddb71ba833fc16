"""`LockManager` and `Lease`, as users call them, over every backend."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from cloudrun_jobs.exceptions import LeaseLost, LockMisused, LockTimeout
from cloudrun_jobs.locks import LockManager, current
from tests.locks.conftest import KINDS, path_and_options

LEASE = 1


@pytest.fixture(params=KINDS)
def configured(request: pytest.FixtureRequest, settings: Any) -> Iterator[str]:
    """The project's settings name each backend in turn, with a short lease."""
    path, options = path_and_options(request.param, request)
    settings.CLOUDRUN_JOBS = {
        "ENVIRONMENT": "staging",
        "LOCKS": {"BACKEND": path, "OPTIONS": {**options, "lease": LEASE}},
    }
    yield request.param
    current().close()


@pytest.fixture
def manager(configured: str) -> LockManager:
    return LockManager(f"manager {uuid4()}")


def other(manager: LockManager) -> LockManager:
    return LockManager(manager.name, manager.parallelism)


def test_the_block_holds_the_lock(manager):
    """Inside the block nobody else gets the lock; after it anybody does."""
    with manager.lock() as lease:
        assert other(manager).try_lock() is None
        assert [holder.token for holder in manager.holders()] == [lease.token]

    assert other(manager).try_lock()
    assert not manager.release_lock()


def test_a_block_that_raises_gives_the_lock_back(manager):
    """The error passes, the lock is free."""
    with pytest.raises(ZeroDivisionError), manager.lock():
        raise ZeroDivisionError

    assert not manager.holders()


def test_the_lease_is_renewed_while_the_block_runs(manager):
    """A block that takes longer than the lease keeps the lock, and its token."""
    with manager.lock() as lease:
        started = time.monotonic()
        while time.monotonic() < started + 2.5 * LEASE:
            lease.check()
            assert other(manager).try_lock() is None
            time.sleep(0.1)


def test_waiting_ends_with_a_timeout_that_names_lock_and_holder(manager):
    """Who waits in vain learns which lock it was and who has it; it is a TimeoutError."""
    with manager.lock() as lease, pytest.raises(TimeoutError) as caught:
        other(manager).await_lock(timeout=0.3, initial_delay=0.05)

    assert isinstance(caught.value, LockTimeout)
    assert manager.name in str(caught.value)
    assert caught.value.lock == manager.name
    assert [holder.token for holder in caught.value.holders] == [lease.token]


def test_a_waiter_gets_the_lock_when_it_is_released(manager):
    """A waiter in another thread has the lock soon after it was given back."""
    manager.await_lock()
    tokens: list[int] = []

    def wait() -> None:
        with other(manager).lock(timeout=20, initial_delay=0.02, max_delay=0.05) as lease:
            tokens.append(lease.token)

    waiter = threading.Thread(target=wait)
    waiter.start()
    first = manager.holders()[0].token
    assert manager.release_lock(raise_exception=True)
    waiter.join(20)

    assert tokens
    assert tokens[0] > first


def test_as_many_as_parallelism(configured):
    """Three slots, three holders, and the fourth waits in vain."""
    managers = [LockManager(f"three {configured} {id(configured)}", parallelism=3) for _ in range(4)]

    leases = [manager.try_lock() for manager in managers]

    assert [lease is not None for lease in leases] == [True, True, True, False]
    assert {lease.slot for lease in leases if lease} == {0, 1, 2}
    assert all(manager.release_lock() for manager in managers[:3])


def test_losing_the_lock_ends_the_block(manager):
    """When somebody frees the lock, the holder is told within a lease, and the block ends with LeaseLost."""
    with pytest.raises(LeaseLost, match="is lost"):
        _outlive_the_lock(manager)

    assert other(manager).try_lock()


def _outlive_the_lock(manager: LockManager) -> None:
    with manager.lock() as lease:
        current().force_release(manager.holders()[0].lock)
        assert lease.lost.wait(2 * LEASE)


def test_the_lease_of_a_process_that_stopped_is_lost_by_its_own_clock(manager):
    """When no renewal is confirmed, the holder gives up before the server gives the lock to others."""
    lease = manager.await_lock()
    lease.claim.renew = _raise_unavailable
    assert lease.lost.wait(2 * LEASE)

    assert [holder.token for holder in manager.holders()] == [lease.token]


def _raise_unavailable() -> bool:
    from cloudrun_jobs.exceptions import LockUnavailable

    raise LockUnavailable("cut off")


def test_a_lost_lock_can_be_taken_again(manager):
    """A manager whose lease was lost may ask for another."""
    lease = manager.await_lock()
    lease.mark_lost("for this test")
    lease.claim.release(finished=True)

    assert manager.await_lock(timeout=5, initial_delay=0.05).token > lease.token


def test_a_second_release_is_an_error(manager):
    """A lock is released once; quietly the second answer is False."""
    lease = manager.await_lock()
    assert manager.release_lock(raise_exception=True)
    assert not manager.release_lock()
    with pytest.raises(LockMisused, match="does not hold"):
        manager.release_lock(raise_exception=True)
    with pytest.raises(LockMisused, match="released before"):
        lease.release()
    with pytest.raises(LockMisused, match="released before"):
        lease.check()


def test_a_second_acquisition_in_one_thread_is_an_error(manager):
    """It would wait for itself."""
    with manager.lock(), pytest.raises(LockMisused, match="already"):
        manager.await_lock()


def test_another_thread_cannot_release(manager):
    """Each thread has leases of its own."""
    manager.await_lock()
    caught: list[BaseException] = []

    def release() -> None:
        try:
            manager.release_lock(raise_exception=True)
        except LockMisused as error:
            caught.append(error)

    thread = threading.Thread(target=release)
    thread.start()
    thread.join(10)

    assert len(caught) == 1
    assert other(manager).try_lock() is None


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_child_cannot_use_its_parents_lease(manager):
    """After a fork the lock stays with the parent, whose connection the child leaves alone."""
    lease = manager.await_lock()
    pipe, childs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_use_in_child, args=(lease, manager, childs))
    child.start()

    assert pipe.poll(20)
    assert "held by process" in pipe.recv()
    child.join(20)
    assert manager.release_lock(raise_exception=True)


def _use_in_child(lease: Any, manager: LockManager, pipe: Any) -> None:
    try:
        lease.release()
    except LockMisused as error:
        assert current().is_shared is False or other(manager).try_lock() is None
        pipe.send(str(error))


def test_a_manager_follows_the_settings(settings):
    """One that a module keeps asks the backend that is in force now."""
    manager = LockManager("follows")
    manager.try_lock()
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "local", "LOCKS": {"BACKEND": "cloudrun_jobs.locks.local.LocalLocks"}}

    assert manager._keeper() is current()
    manager.release_lock()
    assert manager.try_lock()
    manager.release_lock()


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_manager_takes_no_connections_into_a_fork():
    """The child's asks a backend of its own."""
    manager = LockManager("forked")
    keeper = manager._keeper()
    pipe, childs = multiprocessing.Pipe()
    fork = multiprocessing.get_context("fork")
    child = fork.Process(target=lambda: childs.send(manager._keeper() is keeper))
    child.start()

    assert pipe.poll(20)
    assert pipe.recv() is False
    child.join(20)


@pytest.mark.parametrize("parallelism", [0, -1, 1.5, True, None, 1001, "2"])
def test_an_impossible_parallelism_is_refused(parallelism):
    """Said when the manager is made, with what came."""
    with pytest.raises(ValueError, match="from 1 to 1000"):
        LockManager("x", parallelism)


@pytest.mark.parametrize("name", ["", None, 3, b"x"])
def test_what_is_no_name_is_refused(name):
    """Said when the manager is made."""
    with pytest.raises(ValueError, match="expected text"):
        LockManager(name)


@pytest.mark.parametrize("arguments", [{"timeout": -1}, {"initial_delay": -0.1}, {"max_delay": None}])
def test_impossible_times_are_refused(arguments):
    """Before anything is asked of a server."""
    with pytest.raises(ValueError, match="expected seconds"):
        LockManager("x").await_lock(**arguments)


def test_the_idempotency_key_is_the_same_in_each_attempt(manager, monkeypatch):
    """In a task it is made of the run, the task and the step, not of the attempt."""
    found = set()
    for attempt in "01":
        monkeypatch.setenv("CLOUD_RUN_EXECUTION", "job-x1")
        monkeypatch.setenv("CLOUD_RUN_TASK_ATTEMPT", attempt)
        lease = LockManager(f"{manager.name}{attempt}").await_lock()
        found.add(lease.idempotency_key("charge"))
        lease.release()

    assert found == {"job-x1:0:charge"}
