"""`LockManager` and `Lease` with every backend."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from cloudrun_jobs.exceptions import LeaseLost, LockMisused, LockTimeout, LockUnavailable
from cloudrun_jobs.locks import LockManager, current
from tests.locks.conftest import KINDS, path_and_options

LEASE = 1  # Seconds.


@pytest.fixture(params=KINDS)
def configured(request: pytest.FixtureRequest, settings: Any) -> Iterator[str]:
    """Settings that name each backend in turn, with a short lease."""
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


def test_block_holds_the_lock(manager):
    """No other manager can acquire the lock inside of the block; any can after it."""
    with manager.lock() as lease:
        assert other(manager).try_lock() is None
        assert [holder.token for holder in manager.holders()] == [lease.token]

    assert other(manager).try_lock()
    assert not manager.release_lock()


def test_error_in_the_block_releases_the_lock(manager):
    """The error propagates, and the lock is free."""
    with pytest.raises(ZeroDivisionError), manager.lock():
        raise ZeroDivisionError

    assert not manager.holders()


def test_lease_is_renewed_while_the_block_runs(manager):
    """A block that takes longer than the lease keeps the lock."""
    with manager.lock() as lease:
        started = time.monotonic()
        while time.monotonic() < started + 1.3 * LEASE:
            lease.check()
            assert other(manager).try_lock() is None
            time.sleep(0.1)


def test_timeout_names_lock_and_holder(manager):
    """`LockTimeout` is a `TimeoutError` with the lock and its holders."""
    with manager.lock() as lease, pytest.raises(TimeoutError) as caught:
        other(manager).await_lock(timeout=0.3, initial_delay=0.05)

    assert isinstance(caught.value, LockTimeout)
    assert manager.name in str(caught.value)
    assert caught.value.lock == manager.name
    assert [holder.token for holder in caught.value.holders] == [lease.token]


def test_waiter_acquires_a_released_lock(manager):
    """A waiter in another thread acquires the lock soon after its release."""
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


def test_parallelism_is_the_number_of_slots(configured):
    """Three slots have three holders, and the fourth is refused."""
    managers = [LockManager(f"three {configured} {id(configured)}", parallelism=3) for _ in range(4)]

    leases = [manager.try_lock() for manager in managers]

    assert [lease is not None for lease in leases] == [True, True, True, False]
    assert [holder.slot for holder in managers[0].holders()] == [0, 1, 2]
    assert all(manager.release_lock() for manager in managers[:3])


def test_lost_lease_raises_at_the_end_of_the_block(manager):
    """A holder whose lock is released by force learns it within a lease, and the block raises `LeaseLost`."""
    with pytest.raises(LeaseLost, match="is lost"):
        _outlive_the_lock(manager)

    assert other(manager).try_lock()


def _outlive_the_lock(manager: LockManager) -> None:
    with manager.lock() as lease:
        (holder,) = manager.holders()
        current().release_slot(holder.lock, holder.slot, holder.token)
        assert lease.lost.wait(2 * LEASE)


def test_lease_without_renewals_is_lost_by_the_holders_clock(manager):
    """The holder marks its lease as lost before the server grants the lock again."""
    lease = manager.await_lock()
    manager._keeper.request.renew = _raise_unavailable
    assert lease.lost.wait(2 * LEASE)

    assert [holder.token for holder in manager.holders()] == [lease.token]


def _raise_unavailable() -> bool:
    raise LockUnavailable("cut off")


def test_lost_lock_can_be_acquired_again(manager):
    """A manager whose lease is lost may acquire another."""
    lease = manager.await_lock()
    manager._keeper.mark_lost("for this test")
    manager._keeper.request.release(finished=True)

    assert manager.await_lock(timeout=5, initial_delay=0.05).token > lease.token


def test_second_release_is_an_error(manager):
    """A lock is released once; without `raise_exception` the second release returns False."""
    lease = manager.await_lock()
    keeper = manager._keeper
    assert manager.release_lock(raise_exception=True)
    assert not manager.release_lock()
    with pytest.raises(LockMisused, match="does not hold"):
        manager.release_lock(raise_exception=True)
    with pytest.raises(LockMisused, match="released before"):
        keeper.release()
    with pytest.raises(LockMisused, match="released before"):
        lease.check()


def test_second_acquisition_in_one_thread_is_an_error(manager):
    """The thread would wait for itself."""
    with manager.lock(), pytest.raises(LockMisused, match="already"):
        manager.await_lock()


def test_other_thread_cannot_release(manager):
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
def test_forked_child_cannot_use_its_parents_lease(manager):
    """After a fork the lock stays with the parent, and the child does not use the parent's connection."""
    manager.await_lock()
    pipe, childs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_use_in_child, args=(manager, childs))
    child.start()

    assert pipe.poll(20)
    assert "held by process" in pipe.recv()
    child.join(20)
    assert manager.release_lock(raise_exception=True)


def _use_in_child(manager: LockManager, pipe: Any) -> None:
    try:
        manager._keeper.release()
    except LockMisused as error:
        assert current().is_shared is False or other(manager).try_lock() is None
        pipe.send(str(error))


def test_manager_follows_the_settings(settings):
    """A manager in a module uses the backend that is in force now."""
    manager = LockManager("follows")
    manager.try_lock()
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "local", "LOCKS": {"BACKEND": "cloudrun_jobs.locks.local.LocalLocks"}}

    assert manager._backend() is current()
    manager.release_lock()
    assert manager.try_lock()
    manager.release_lock()


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_manager_builds_another_backend_after_a_fork():
    """A child does not share the parent's connections."""
    manager = LockManager("forked")
    backend = manager._backend()
    pipe, childs = multiprocessing.Pipe()
    fork = multiprocessing.get_context("fork")
    child = fork.Process(target=lambda: childs.send(manager._backend() is backend))
    child.start()

    assert pipe.poll(20)
    assert pipe.recv() is False
    child.join(20)


@pytest.mark.parametrize("parallelism", [0, -1, 1.5, True, None, 1001, "2"])
def test_invalid_parallelism_is_refused(parallelism):
    """The constructor raises `ValueError`."""
    with pytest.raises(ValueError, match="from 1 to 1000"):
        LockManager("x", parallelism)


@pytest.mark.parametrize("name", ["", None, 3, b"x"])
def test_invalid_name_is_refused(name):
    """The constructor raises `ValueError`."""
    with pytest.raises(ValueError, match="expected a string"):
        LockManager(name)


@pytest.mark.parametrize("arguments", [{"timeout": -1}, {"initial_delay": -0.1}, {"max_delay": None}])
def test_invalid_delays_are_refused(arguments):
    """`await_lock()` raises `ValueError` before it sends a request."""
    with pytest.raises(ValueError, match="expected seconds"):
        LockManager("x").await_lock(**arguments)


def test_idempotency_key_is_the_same_in_each_attempt(manager, monkeypatch):
    """In a task it consists of the run, the task and the step, not of the attempt."""
    found = set()
    for attempt in "01":
        monkeypatch.setenv("CLOUD_RUN_EXECUTION", "job-x1")
        monkeypatch.setenv("CLOUD_RUN_TASK_ATTEMPT", attempt)
        with LockManager(f"{manager.name}{attempt}").lock() as lease:
            found.add(lease.idempotency_key("charge"))

    assert found == {"job-x1:0:charge"}
