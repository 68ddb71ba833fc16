"""A lock server that answers with errors or not at all, for less than the lease: no lease is lost."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from uuid import uuid4

import pytest
from django.db import connections, transaction

from cloudrun_jobs.exceptions import LockError, LockTablesMissing, LockUnavailable
from cloudrun_jobs.locks import acquire, names
from cloudrun_jobs.locks.base import LockBackend
from cloudrun_jobs.locks.database import DatabaseLocks
from cloudrun_jobs.locks.database.dialects import SLOTS, TOKENS
from cloudrun_jobs.locks.keeper import LeaseKeeper
from cloudrun_jobs.locks.local import LocalLocks
from cloudrun_jobs.locks.redis import RedisLocks
from cloudrun_jobs.locks.requests import SlotRequest, new_owner
from cloudrun_jobs.locks.timer import LeaseTimer
from cloudrun_jobs.process.connections import close
from tests.locks.conftest import SETTINGS, build
from tests.locks.workers import until
from tests.servers.proxy import FaultProxy
from tests.servers.users import LimitedUser, after, limited_user

LEASE = 3.0  # Seconds.
OUTAGE = 1.0  # seconds
AT_ONCE = 5.0  # seconds; a wait takes 30

FAULTS: dict[str, Callable[[LimitedUser, bool], None]] = {
    "read-only": LimitedUser.set_read_only,
    "no connections": lambda user, on: user.set_connections(not on),
    "no permission": lambda user, on: user.set_writable(not on),
}


@pytest.fixture(params=["postgres", "mariadb"])
def user(request: pytest.FixtureRequest) -> Iterator[LimitedUser]:
    with limited_user(request.getfixturevalue(request.param)) as user:
        yield user


@pytest.fixture
def backend(user: LimitedUser) -> Iterator[LockBackend]:
    backend = DatabaseLocks(SETTINGS, using=user.alias, lease=LEASE)
    yield backend
    backend.close()


def new_request(backend: LockBackend) -> SlotRequest:
    return SlotRequest(backend, names.lock_name(f"unavailable {uuid4()}"), 1, new_owner())


def held(request: SlotRequest) -> LeaseKeeper:
    answer = acquire.acquire_or_holders(request, 5)
    assert isinstance(answer, LeaseKeeper), answer
    return answer


def stays_held(keeper: LeaseKeeper) -> bool:
    """Wait for the next renewal; return False if the lease is lost before."""
    deadline = keeper.deadline
    until(lambda: keeper.deadline > deadline or keeper.lost.is_set())
    return not keeper.lost.is_set()


@pytest.mark.parametrize("fault", FAULTS)
def test_renewals_survive_errors(backend: LockBackend, user: LimitedUser, fault: str) -> None:
    """Whatever the database answers, the lease is renewed once it accepts writes again."""
    keeper = held(new_request(backend))
    FAULTS[fault](user, True)
    with after(OUTAGE, partial(FAULTS[fault], user, False)):
        pass

    assert stays_held(keeper)
    assert keeper.release()


@pytest.mark.parametrize("fault", ["read-only", "no connections"])
def test_a_start_waits_for_what_may_pass(backend: LockBackend, user: LimitedUser, fault: str) -> None:
    """The lock is acquired once the database accepts writes."""
    FAULTS[fault](user, True)
    with after(0.3, partial(FAULTS[fault], user, False)):
        keeper = held(new_request(backend))

    assert keeper.release()


@pytest.mark.parametrize("fault", ["read-only", "no connections"])
def test_an_outage_is_unavailable(backend: LockBackend, user: LimitedUser, fault: str) -> None:
    """The caller may retry, or run without the lock."""
    FAULTS[fault](user, True)

    with pytest.raises(LockUnavailable):
        acquire.acquire_or_holders(new_request(backend), 0.2)


def test_a_missing_permission_ends_the_start_at_once(backend: LockBackend, user: LimitedUser) -> None:
    """The message names the database and its reason."""
    user.set_writable(False)
    started = time.monotonic()

    with pytest.raises(LockError, match=f"{user.alias}.*denied") as caught:
        acquire.acquire_or_holders(new_request(backend), 30)

    assert not isinstance(caught.value, LockUnavailable)
    assert time.monotonic() - started < AT_ONCE


def test_an_unknown_database_ends_the_start_at_once(mariadb: str) -> None:
    """PostgreSQL's drivers do not report the code of a refused connection, so a start waits there."""
    connections.settings["unknown"] = {**connections.settings[mariadb], "NAME": "unknown"}
    backend = DatabaseLocks(SETTINGS, using="unknown")
    started = time.monotonic()

    with pytest.raises(LockError, match="accepts no connection") as caught:
        acquire.acquire_or_holders(new_request(backend), 30)

    assert not isinstance(caught.value, LockUnavailable)
    assert time.monotonic() - started < AT_ONCE


def test_missing_tables_end_the_start_at_once(backend: LockBackend, user: LimitedUser) -> None:
    """The message says how to create them."""
    with connections[user.administrator].cursor() as cursor:
        cursor.execute(f"ALTER TABLE {TOKENS} RENAME TO gone")
    try:
        with pytest.raises(LockTablesMissing, match=f"migrate cloudrun_jobs --database {user.alias}"):
            acquire.acquire_or_holders(new_request(backend), 30)
    finally:
        with connections[user.administrator].cursor() as cursor:
            cursor.execute(f"ALTER TABLE gone RENAME TO {TOKENS}")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failed_release_does_not_fail_the_work(backend: LockBackend, user: LimitedUser, fault: str) -> None:
    """The lease expires then."""
    keeper = held(new_request(backend))
    FAULTS[fault](user, True)

    assert not keeper.try_release()


@pytest.fixture(params=["redis", "postgres", "mariadb"])
def behind_proxy(request: pytest.FixtureRequest) -> Iterator[tuple[LockBackend, FaultProxy]]:
    """A backend behind a proxy."""
    kind: str = request.param
    server = request.getfixturevalue(f"{kind}_server")
    proxy = FaultProxy(server.port)
    if kind == "redis":
        backend: LockBackend = RedisLocks(SETTINGS, url=f"redis://127.0.0.1:{proxy.port}/0", lease=LEASE)
    else:
        alias = f"{kind}_{proxy.port}"  # New: Django keeps what it made for an alias.
        settings = connections.settings[request.getfixturevalue(kind)]
        connections.settings[alias] = {**settings, "PORT": str(proxy.port)}
        backend = DatabaseLocks(SETTINGS, using=alias, lease=LEASE)
    yield backend, proxy
    proxy.close()
    backend.close()


def test_a_silent_connection_is_replaced(behind_proxy: tuple[LockBackend, FaultProxy]) -> None:
    """The lease is renewed on a new connection while the old ones, all of them, only seem to be open."""
    backend, proxy = behind_proxy
    keepers = [held(new_request(backend)) for _ in range(3)]
    proxy.mute()

    assert all(map(stays_held, keepers))
    assert all(keeper.release() for keeper in keepers)


def test_a_silent_server_is_waited_for(behind_proxy: tuple[LockBackend, FaultProxy]) -> None:
    """The lease is renewed once the server replies again, on whatever connection."""
    backend, proxy = behind_proxy
    keeper = held(new_request(backend))
    proxy.silent = True
    with after(OUTAGE, lambda: setattr(proxy, "silent", False)):
        pass

    assert stays_held(keeper)
    assert keeper.release()


def test_a_silent_connection_does_not_hang_a_release(
    behind_proxy: tuple[LockBackend, FaultProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job on its way out does not wait for a reply that never comes."""
    monkeypatch.setattr("cloudrun_jobs.locks.database.REPLY_LIMIT_SECONDS", 0.5)
    backend, proxy = behind_proxy
    request = new_request(backend)
    request.ttl = 60.0
    keeper = held(request)
    proxy.mute()
    started = time.monotonic()

    assert keeper.release()
    assert time.monotonic() - started < AT_ONCE


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_a_blocked_row_loses_nothing(kind: str, request: pytest.FixtureRequest) -> None:
    """A transaction that locks the lease's row delays the renewals, and keeps none of their sessions."""
    alias = request.getfixturevalue(kind)
    backend = DatabaseLocks(SETTINGS, using=alias, lease=LEASE)
    keeper = held(new_request(backend))
    with transaction.atomic(alias), connections[alias].cursor() as cursor:
        cursor.execute(f"SELECT id FROM {SLOTS} FOR UPDATE")
        time.sleep(2 * OUTAGE)
        assert not keeper.lost.is_set()

    assert stays_held(keeper)
    assert keeper.release()
    backend.close()
    close(connections[alias])


@pytest.mark.parametrize(
    ("kind", "query", "limit"),
    [
        ("postgres", "SHOW statement_timeout", "4s"),
        ("mariadb", "SELECT @@max_statement_time, @@lock_wait_timeout, @@innodb_lock_wait_timeout", 4),
    ],
)
def test_statements_have_a_limit_of_the_server(
    kind: str, query: str, limit: object, request: pytest.FixtureRequest
) -> None:
    """The server ends what the client has given up."""
    backend = DatabaseLocks(SETTINGS, using=request.getfixturevalue(kind))
    with backend._connections.lend() as cursor:
        cursor.execute(query)
        found = cursor.fetchone()
    backend.close()

    assert found[0] == limit


def test_a_pooler_keeps_no_limit(pgbouncer: str) -> None:
    """Its sessions are those of other clients too."""
    backend = DatabaseLocks(SETTINGS, using=pgbouncer)
    assert new_request(backend).acquire() is None
    with connections[pgbouncer].cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        found = cursor.fetchone()
    connections[pgbouncer].close()
    backend.close()

    assert found == ("0",)


def test_pruning_has_no_limit(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleting many rows may take longer than a statement of a lease."""
    backend = DatabaseLocks(SETTINGS, using=postgres)
    delete = backend.dialect.prune

    def slow(cursor: object, age: int) -> int:
        cursor.execute("SHOW statement_timeout")  # type: ignore[attr-defined]
        assert cursor.fetchone() == ("0",)  # type: ignore[attr-defined]
        return delete(cursor, age)  # type: ignore[arg-type]

    monkeypatch.setattr(backend.dialect, "prune", slow)

    assert backend.prune(timedelta(days=1)) >= 0
    backend.close()
    close(connections[postgres])


class Failing:
    """A lease whose deadline comes, and whose handler fails."""

    def __init__(self) -> None:
        self.calls = 0

    def next_deadline(self) -> float:
        return math.inf if self.calls else 0.0

    def on_deadline(self) -> None:
        self.calls += 1
        raise RuntimeError("can't start new thread")


def test_a_failing_deadline_stops_no_other() -> None:
    """One thread watches the deadlines of all leases."""
    watched, first, second = LeaseTimer(), Failing(), Failing()
    watched.watch(first)
    until(lambda: first.calls)
    watched.watch(second)

    until(lambda: second.calls)


def test_a_renewal_waits_for_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that cannot start a thread now tries again before the lease ends."""
    start, refused = threading.Thread.start, []

    def start_later(thread: threading.Thread) -> None:
        if thread.name.startswith("cloudrun_jobs-lease-un") and len(refused) < 3:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_later)
    keeper = held(new_request(LocalLocks(SETTINGS, lease=LEASE)))

    assert stays_held(keeper)
    assert len(refused) == 3
    assert keeper.release()


def test_a_failing_watchdog_stops_no_renewal() -> None:
    """What is called after a renewal may fail, as when no thread can be started."""
    calls: list[object] = []

    def fail() -> None:
        calls.append(None)
        raise RuntimeError("unable to start watchdog thread")

    keeper = held(new_request(LocalLocks(SETTINGS, lease=1.0)))
    keeper.watch(on_renewed=fail, on_lost=lambda: None)

    until(lambda: len(calls) >= 3)
    assert not keeper.lost.is_set()
    assert keeper.release()


class Emptied(deque):
    """The idle connections of a backend, of which another thread takes the last one after each look."""

    def __bool__(self) -> bool:
        return True


@pytest.mark.parametrize("kind", ["redis", "postgres"])
def test_threads_do_not_take_the_same_idle_connection(kind: str, request: pytest.FixtureRequest) -> None:
    """In an outage the threads of several leases replace their connections at the same time."""
    backend = build(kind, request)
    pool = backend._connections if isinstance(backend, DatabaseLocks) else backend
    pool._idle = Emptied()

    keeper = held(new_request(backend))

    assert keeper.release()
    backend.close()
