"""A lock server that loses replies, is unavailable, loses its data, is full, or refuses writes."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from uuid import uuid4

import pytest
from django.db import connections
from redis import Redis

from cloudrun_jobs import exceptions
from cloudrun_jobs.conf import Settings
from cloudrun_jobs.exceptions import LeaseLost, LockTablesMissing, LockUnavailable, LockUnknown
from cloudrun_jobs.locks import acquire, names
from cloudrun_jobs.locks.base import Grant, LockBackend
from cloudrun_jobs.locks.database import DatabaseLocks
from cloudrun_jobs.locks.keeper import LeaseKeeper
from cloudrun_jobs.locks.local import LocalLocks
from cloudrun_jobs.locks.redis import RedisLocks
from cloudrun_jobs.locks.requests import SlotRequest, new_owner
from tests.locks.workers import until
from tests.servers import redis, sql
from tests.servers.process import Server
from tests.servers.proxy import FaultProxy

pytestmark = pytest.mark.faults

SETTINGS = Settings(environment="production")
LEASE = 1.5  # Seconds.


@pytest.fixture(params=["redis", "postgres", "mariadb"])
def behind_proxy(request: pytest.FixtureRequest) -> Iterator[tuple[LockBackend, FaultProxy, LockBackend]]:
    """A backend behind a proxy, and one that reaches the same server directly."""
    kind = request.param
    server: Server = request.getfixturevalue(f"{kind}_server")
    proxy = FaultProxy(server.port)
    if kind == "redis":
        path = f"redis://127.0.0.1:{proxy.port}/0"
        pair = (
            RedisLocks(SETTINGS, url=path, lease=LEASE),
            RedisLocks(SETTINGS, url=redis.url(server), lease=LEASE),
        )
    else:
        direct = request.getfixturevalue(kind)
        alias = f"{kind}_{proxy.port}"  # New: Django keeps what it made for an alias.
        connections.settings[alias] = {**connections.settings[direct], "PORT": str(proxy.port)}
        pair = (
            DatabaseLocks(SETTINGS, using=alias, lease=LEASE),
            DatabaseLocks(SETTINGS, using=direct, lease=LEASE),
        )
    yield pair[0], proxy, pair[1]
    proxy.close()
    for backend in pair:
        backend.close()


def new_request(backend: LockBackend, name: str | None = None, slots: int = 1) -> SlotRequest:
    return SlotRequest(backend, names.lock_name(name or f"outage {uuid4()}"), slots, new_owner())


def held(request: SlotRequest) -> LeaseKeeper:
    answer = acquire.acquire_or_holders(request, 5)
    assert isinstance(answer, LeaseKeeper), answer
    return answer


@pytest.mark.parametrize("when", range(4))
def test_lost_reply_is_repeated(behind_proxy, when):
    """Whichever reply is lost, the caller holds the lock once, and it is free in the end."""
    backend, proxy, direct = behind_proxy
    held(new_request(backend)).release()  # Connected.
    request = new_request(backend)

    proxy.lose_replies = int(when == 0)
    keeper = held(request)
    assert [holder.token for holder in direct.holders(request.name.key)] == [keeper.lease.token]
    proxy.lose_replies = int(when == 1)
    assert request.renew()
    proxy.lose_replies = int(when == 2)
    keeper.check()
    keeper.release()
    proxy.lose_replies = 0

    assert not direct.holders(request.name.key)


@pytest.mark.parametrize("replies", [1, 2, 3])
def test_release_is_known_after_lost_replies(behind_proxy, monkeypatch, replies):
    """`release()` returns True although another holder has acquired the lock before the reply that arrives."""
    backend, proxy, direct = behind_proxy
    request = new_request(backend)
    request.ttl = 30.0
    keeper, others = held(request), []
    release = backend.release

    def release_and_acquire(grant: Grant) -> bool:
        try:
            return release(grant)
        finally:
            others.append(new_request(direct, request.name.label).acquire())

    monkeypatch.setattr(backend, "release", release_and_acquire)
    proxy.lose_replies = replies

    assert acquire.release(keeper)
    assert others[0] is None


def test_release_waits_for_a_server_that_is_away(behind_proxy):
    """The lock is free as soon as the server is back, and not when the lease ends."""
    backend, proxy, direct = behind_proxy
    request = new_request(backend)
    request.ttl = 30.0
    keeper = held(request)
    proxy.set_away(True)
    back = threading.Timer(0.7, proxy.set_away, [False])
    back.start()

    assert acquire.release(keeper)
    back.join()
    assert not direct.holders(request.name.key)


def test_release_ends_with_the_lease(behind_proxy):
    """A server that stays away does not block the caller for longer than the lease."""
    backend, proxy, _ = behind_proxy
    keeper = held(new_request(backend))
    proxy.set_away(True)
    before = time.monotonic()

    with pytest.raises(LockUnavailable):
        acquire.release(keeper)

    assert time.monotonic() - before < 2 * LEASE
    proxy.set_away(False)


def test_outage_shorter_than_the_lease_loses_nothing(behind_proxy):
    """The server is unavailable while a renewal is due, and the lock stays held."""
    backend, proxy, direct = behind_proxy
    request = new_request(backend)
    request.ttl = 4.0
    keeper = held(request)
    first = keeper.deadline
    proxy.set_away(True)
    time.sleep(1.2)
    proxy.set_away(False)
    until(lambda: keeper.deadline > first)

    keeper.check()
    assert [holder.token for holder in direct.holders(request.name.key)] == [keeper.lease.token]
    keeper.release()


def test_closed_connection_is_replaced_within_one_renewal(behind_proxy):
    """No renewal fails when its connection was closed before, as by a move to another machine."""
    backend, proxy, _ = behind_proxy
    request = new_request(backend)
    held(request)
    for _ in range(3):
        proxy.cut()
        assert request.renew()
    request.release(finished=True)


def test_connections_closed_together_are_replaced(behind_proxy):
    """The second try does not use another closed connection."""
    backend, proxy, _ = behind_proxy
    request = new_request(backend)
    request.ttl = 30.0
    assert request.acquire() is None
    proxy.lag = 0.3
    renewals = [threading.Thread(target=request.renew) for _ in range(3)]
    for renewal in renewals:
        renewal.start()
    for renewal in renewals:
        renewal.join(20)
    proxy.lag = 0
    proxy.cut()

    assert request.renew()
    request.release(finished=True)


def test_outage_longer_than_the_lease_loses_it(behind_proxy):
    """The holder marks its lease as lost before the server grants the lock again."""
    backend, proxy, direct = behind_proxy
    request = new_request(backend)
    keeper = held(request)
    proxy.set_away(True)
    assert keeper.lost.wait(2 * LEASE)

    assert time.monotonic() >= keeper.deadline
    other = new_request(direct, request.name.label)
    assert other.acquire() is not None  # The server still counts.
    with pytest.raises(LeaseLost, match="no renewal was confirmed"):
        keeper.check()
    proxy.set_away(False)
    until(lambda: other.acquire() is None)


def test_slow_renewal_counts_from_its_request(behind_proxy):
    """The deadline is counted from before the request, not from the reply."""
    backend, proxy, _ = behind_proxy
    request = new_request(backend)
    request.ttl = 6.0
    keeper = held(request)
    proxy.lag = 0.3
    before = time.monotonic()
    keeper._renew()

    assert time.monotonic() - before >= 0.3
    assert before + 6.0 * 7 / 8 <= keeper.deadline <= before + 6.0 * 7 / 8 + 0.1
    proxy.lag = 0
    keeper.release()


def test_unreachable_server_is_unavailable(behind_proxy):
    """The error says that the lock was not granted."""
    backend, proxy, _ = behind_proxy
    proxy.set_away(True)

    with pytest.raises(LockUnavailable) as caught:
        acquire.acquire_or_holders(new_request(backend), 0.3)

    assert not isinstance(caught.value, LockUnknown)
    proxy.set_away(False)


def test_request_without_a_reply_is_unavailable(behind_proxy):
    """The caller gets `LockUnavailable` when every reply is lost."""
    backend, proxy, direct = behind_proxy
    held(new_request(backend)).release()
    proxy.lose_replies = 1000

    with pytest.raises(LockUnavailable):
        acquire.acquire_or_holders(new_request(backend), 0.5)

    proxy.lose_replies = 0
    assert direct.holders("crj1:") is not None


def test_renewal_survives_terminated_sessions(postgres):
    """After `pg_terminate_backend` the next renewal reconnects."""
    backend = DatabaseLocks(SETTINGS, using=postgres, lease=LEASE)
    request = new_request(backend)
    request.acquire()
    with connections[postgres].cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    connections[postgres].close()

    assert request.renew()
    assert request.release(finished=True)
    backend.close()


def test_renewal_survives_a_read_only_session(postgres):
    """A server that turned read-only, as after a failover, is left for a new connection within one renewal."""
    backend = DatabaseLocks(SETTINGS, using=postgres, lease=LEASE)
    request = new_request(backend)
    request.acquire()
    with backend._connections.lend() as cursor:
        cursor.execute("SET default_transaction_read_only = on")

    assert request.renew()
    assert request.release(finished=True)
    backend.close()


def test_renewals_go_on_after_an_unexpected_error():
    """Whatever error a renewal raises, the lease is renewed until it ends."""
    request = new_request(LocalLocks(SETTINGS, lease=LEASE))
    renew, errors = request.renew, iter([ZeroDivisionError()])

    def fail_once() -> bool:
        for error in errors:
            raise error
        return renew()

    request.renew = fail_once
    keeper = held(request)
    first = keeper.deadline
    until(lambda: keeper.deadline > first)

    keeper.check()
    keeper.release()


@pytest.fixture
def own_redis() -> Iterator[Server]:
    server = redis.start(redis.redis_program())
    yield server
    server.stop()


def refusal(backend: LockBackend) -> str:
    with pytest.raises(LockUnavailable) as caught:
        new_request(backend).acquire()
    assert not isinstance(caught.value, LockUnknown)
    return str(caught.value)


def test_redis_that_lost_its_data(own_redis):
    """The next renewal reports the loss, and the next holder's token is greater all the same."""
    backend = RedisLocks(SETTINGS, url=redis.url(own_redis), lease=LEASE)
    request = new_request(backend)
    keeper = held(request)
    own_redis.kill()
    own_redis.start()
    second = new_request(backend, request.name.label)
    assert second.acquire() is None

    assert second.grant.token > keeper.lease.token
    assert keeper.lost.wait(2 * LEASE)
    assert not request.renew()
    backend.close()


def test_full_redis_renews_and_releases(own_redis):
    """It grants no new lock, with the reason; held locks can be renewed and released."""
    backend = RedisLocks(SETTINGS, url=redis.url(own_redis), lease=30)
    request = new_request(backend)
    assert request.acquire() is None
    with Redis(port=own_redis.port) as client:
        client.config_set("maxmemory", "1")

        assert "is full" in refusal(backend)

        assert request.renew()
        assert request.release(finished=True)
        assert backend.holders(request.name.key) == []
    backend.close()


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_evicting_redis_is_warned_of(own_redis, policy):
    """It may grant a lock twice."""
    backend = RedisLocks(SETTINGS, url=redis.url(own_redis))
    assert list(backend.inspect()) == []
    with Redis(port=own_redis.port) as client:
        client.config_set("maxmemory-policy", policy)

    (warning,) = backend.inspect()

    assert warning.id == "cloudrun_jobs.W020"
    assert policy in warning.msg
    backend.close()


def test_replica_is_refused(own_redis, redis_server):
    """The error asks for the address of the primary."""
    backend = RedisLocks(SETTINGS, url=redis.url(own_redis))
    with Redis(port=own_redis.port) as client:
        client.replicaof("127.0.0.1", str(redis_server.port))
        until(lambda: client.info("replication")["master_link_status"] == "up")

        assert "read-only replica" in refusal(backend)
    backend.close()


def test_lock_without_confirmed_replicas_is_released(own_redis):
    """With `wait_replicas`, a lock that a failover would lose is not granted."""
    backend = RedisLocks(SETTINGS, url=redis.url(own_redis), wait_replicas=1, lease=LEASE)
    request = new_request(backend)

    with pytest.raises(LockUnavailable, match="0 of 1 replicas"):
        request.acquire()

    assert not backend.holders(request.name.key)
    backend.close()


def test_stopped_replica_confirms_nothing(own_redis):
    """No lock is granted while the replica is stopped; one is when it goes on."""
    replica = redis.start(redis.redis_program(), "--replicaof", "127.0.0.1", str(own_redis.port))
    with Redis(port=replica.port) as client:
        until(lambda: client.info("replication")["master_link_status"] == "up")
    backend = RedisLocks(SETTINGS, url=redis.url(own_redis), wait_replicas=1, lease=LEASE)
    request = new_request(backend)
    assert request.acquire() is None
    assert request.release(finished=True)
    replica.process.send_signal(signal.SIGSTOP)

    with pytest.raises(LockUnavailable, match="0 of 1 replicas"):
        request.acquire()

    assert not backend.holders(request.name.key)
    replica.process.send_signal(signal.SIGCONT)
    assert isinstance(acquire.acquire_or_holders(new_request(backend, request.name.label), 20), LeaseKeeper)
    backend.close()
    replica.stop()


def test_wrong_password_is_reported_and_not_shown():
    """The error says what to do, and does not contain the URL."""
    server = redis.start(redis.redis_program(), password="hunter2")
    bare = RedisLocks(SETTINGS, url=redis.url(server))
    wrong = RedisLocks(SETTINGS, url=f"redis://:hunter3@127.0.0.1:{server.port}/0")
    right = RedisLocks(SETTINGS, url=f"redis://:hunter2@127.0.0.1:{server.port}/0")

    assert "requires another user or password" in refusal(bare)
    assert "hunter3" not in refusal(wrong)
    assert new_request(right).acquire() is None
    for backend in (bare, wrong, right):
        backend.close()
    server.stop()


def test_missing_tables_name_the_migrate_command(tmp_path):
    """`LockTablesMissing` is raised at once."""
    connections.settings["bare"] = {
        **connections.settings["default"],
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(tmp_path / "bare"),
    }
    backend = DatabaseLocks(SETTINGS, using="bare")
    with pytest.raises(LockTablesMissing, match=r"manage\.py migrate cloudrun_jobs --database bare"):
        acquire.acquire_or_holders(new_request(backend), 20)

    (warning,) = backend.inspect()
    connections["bare"].close()
    backend.close()

    assert warning.id == "cloudrun_jobs.W021"


def test_base_classes_of_the_errors():
    """`LockTimeout` is a `TimeoutError`; `LeaseLost` is no `Exception`."""
    assert issubclass(exceptions.LockTimeout, TimeoutError)
    assert not issubclass(exceptions.LeaseLost, Exception)
    assert issubclass(LockUnknown, LockUnavailable)


def test_unreachable_database_is_named(tmp_path):
    """`LockUnavailable` names the database."""
    connections.settings["away"] = {**connections.settings["default"], "OPTIONS": {}, **sql.postgres_settings(1)}
    backend = DatabaseLocks(SETTINGS, using="away")

    assert "The database 'away', which keeps the locks, accepts no connection" in refusal(backend)
