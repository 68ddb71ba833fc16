"""A server of locks that loses replies, goes away, comes back empty, is full, or will not write."""

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
from cloudrun_jobs.locks.base import LockBackend
from cloudrun_jobs.locks.database import DatabaseLocks
from cloudrun_jobs.locks.lease import Lease
from cloudrun_jobs.locks.owner import new_owner
from cloudrun_jobs.locks.redis import RedisLocks
from cloudrun_jobs.locks.requests import SlotRequest
from tests.locks.workers import until
from tests.servers import redis, sql
from tests.servers.process import Server
from tests.servers.proxy import FaultProxy

pytestmark = pytest.mark.faults

SETTINGS = Settings(environment="production")
LEASE = 1.5


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


def claim(backend: LockBackend, name: str | None = None, slots: int = 1) -> SlotRequest:
    return SlotRequest(backend, names.lock_name(name or f"outage {uuid4()}"), slots, new_owner())


def held(asked: SlotRequest) -> Lease:
    answer = acquire.acquire_or_holders(asked, 5)
    assert isinstance(answer, Lease), answer
    return answer


@pytest.mark.parametrize("when", range(4))
def test_any_lost_reply_is_survived(behind_proxy, when):
    """Whichever reply is cut off, the caller ends up holding the lock, once, and it is free in the end."""
    backend, proxy, direct = behind_proxy
    held(claim(backend)).release()  # Connected.
    asked = claim(backend)

    proxy.lose_replies = int(when == 0)
    lease = held(asked)
    assert [holder.token for holder in direct.holders(asked.name.key)] == [lease.token]
    proxy.lose_replies = int(when == 1)
    assert asked.renew()
    proxy.lose_replies = int(when == 2)
    lease.check()
    lease.release()
    proxy.lose_replies = 0

    assert not direct.holders(asked.name.key)


def test_an_outage_shorter_than_the_lease_is_not_a_loss(behind_proxy):
    """The server is away while a renewal is due; the work goes on, and the lock is its own throughout."""
    backend, proxy, direct = behind_proxy
    asked = claim(backend)
    asked.ttl = 4.0
    lease = held(asked)
    first = lease.deadline
    proxy.set_away(True)
    time.sleep(1.2)
    proxy.set_away(False)
    until(lambda: lease.deadline > first)

    lease.check()
    assert [holder.token for holder in direct.holders(asked.name.key)] == [lease.token]
    lease.release()


def test_connections_that_die_are_replaced_within_one_renewal(behind_proxy):
    """Each is ended between renewals, as by a move to another machine; no renewal fails."""
    backend, proxy, _ = behind_proxy
    asked = claim(backend)
    held(asked)
    for _ in range(3):
        proxy.cut()
        assert asked.renew()
    asked.release(finished=True)


def test_all_connections_that_die_together_are_replaced(behind_proxy):
    """The second try does not go out on another connection that died of the same."""
    backend, proxy, _ = behind_proxy
    asked = claim(backend)
    asked.ttl = 30.0
    assert asked.take() is None
    proxy.lag = 0.3
    renewals = [threading.Thread(target=asked.renew) for _ in range(3)]
    for renewal in renewals:
        renewal.start()
    for renewal in renewals:
        renewal.join(20)
    proxy.lag = 0
    proxy.cut()

    assert asked.renew()
    asked.release(finished=True)


def test_an_outage_longer_than_the_lease_is_a_loss_in_time(behind_proxy):
    """The holder gives up by its own clock, before the server gives the lock to another."""
    backend, proxy, direct = behind_proxy
    asked = claim(backend)
    lease = held(asked)
    proxy.set_away(True)
    assert lease.lost.wait(2 * LEASE)

    assert time.monotonic() >= lease.deadline
    other = claim(direct, asked.name.label)
    assert other.take() is not None  # The server still counts.
    with pytest.raises(LeaseLost, match="no renewal was confirmed"):
        lease.check()
    proxy.set_away(False)
    until(lambda: other.take() is None)


def test_a_slow_renewal_counts_from_when_it_was_sent(behind_proxy):
    """A reply that took long extends the trust by that much less."""
    backend, proxy, _ = behind_proxy
    asked = claim(backend)
    asked.ttl = 6.0
    lease = held(asked)
    proxy.lag = 0.3
    before = time.monotonic()
    lease._renew()

    assert time.monotonic() - before >= 0.3
    assert before + 6.0 * 7 / 8 <= lease.deadline <= before + 6.0 * 7 / 8 + 0.1
    proxy.lag = 0
    lease.release()


def test_a_server_that_is_away_is_unavailable_not_held(behind_proxy):
    """Asked in vain, the caller learns that nothing was taken."""
    backend, proxy, _ = behind_proxy
    proxy.set_away(True)

    with pytest.raises(LockUnavailable) as caught:
        acquire.acquire_or_holders(claim(backend), 0.3)

    assert not isinstance(caught.value, LockUnknown)
    proxy.set_away(False)


def test_an_unanswered_request_is_unknown(behind_proxy):
    """When every reply is lost, the caller is told that it may hold the lock."""
    backend, proxy, direct = behind_proxy
    held(claim(backend)).release()
    proxy.lose_replies = 1000

    with pytest.raises(LockUnavailable):
        acquire.acquire_or_holders(claim(backend), 0.5)

    proxy.lose_replies = 0
    assert direct.holders("crj1:") is not None


def test_all_connections_ended_by_the_server(postgres):
    """pg_terminate_backend between two renewals: the second reconnects."""
    backend = DatabaseLocks(SETTINGS, using=postgres, lease=LEASE)
    asked = claim(backend)
    asked.take()
    with connections[postgres].cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    connections[postgres].close()

    assert asked.renew()
    assert asked.release(finished=True)
    backend.close()


@pytest.fixture
def own_redis() -> Iterator[Server]:
    server = redis.start(redis.redis_program())
    yield server
    server.stop()


def refusal(backend: LockBackend) -> str:
    with pytest.raises(LockUnavailable) as caught:
        claim(backend).take()
    assert not isinstance(caught.value, LockUnknown)
    return str(caught.value)


def test_a_redis_that_lost_its_data(own_redis):
    """The holder learns it with the next renewal, and the next holder's token is greater all the same."""
    backend = RedisLocks(SETTINGS, url=redis.url(own_redis), lease=LEASE)
    asked = claim(backend)
    lease = held(asked)
    own_redis.kill()
    own_redis.start()
    second = claim(backend, asked.name.label)
    assert second.take() is None

    assert second.grant.token > lease.token
    assert lease.lost.wait(2 * LEASE)
    assert not asked.renew()
    backend.close()


def test_a_full_redis_keeps_what_it_gave(own_redis):
    """It takes no new lock, and says why; those that are held can be renewed and given back."""
    backend = RedisLocks(SETTINGS, url=redis.url(own_redis), lease=30)
    asked = claim(backend)
    assert asked.take() is None
    with Redis(port=own_redis.port) as client:
        client.config_set("maxmemory", "1")

        assert "is full" in refusal(backend)

        assert asked.renew()
        assert asked.release(finished=True)
    backend.close()


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_redis_that_evicts_is_warned_of(own_redis, policy):
    """It may give a lock away twice."""
    backend = RedisLocks(SETTINGS, url=redis.url(own_redis))
    assert list(backend.inspect()) == []
    with Redis(port=own_redis.port) as client:
        client.config_set("maxmemory-policy", policy)

    (warning,) = backend.inspect()

    assert warning.id == "cloudrun_jobs.W020"
    assert policy in warning.msg
    backend.close()


def test_a_replica_is_named(own_redis, redis_server):
    """A lock is written to the primary."""
    backend = RedisLocks(SETTINGS, url=redis.url(own_redis))
    with Redis(port=own_redis.port) as client:
        client.replicaof("127.0.0.1", str(redis_server.port))
        until(lambda: client.info("replication")["master_link_status"] == "up")

        assert "read-only replica" in refusal(backend)
    backend.close()


def test_a_lock_that_no_replica_confirms_is_given_back(own_redis):
    """With wait_replicas, a lock that a failover would lose is not given."""
    backend = RedisLocks(SETTINGS, url=redis.url(own_redis), wait_replicas=1, lease=LEASE)
    asked = claim(backend)

    with pytest.raises(LockUnavailable, match="0 of 1 replicas"):
        asked.take()

    assert not backend.holders(asked.name.key)
    backend.close()


def test_a_stalled_replica_confirms_nothing(own_redis):
    """While it is stopped no lock is given, and none is left behind; when it goes on, it is."""
    replica = redis.start(redis.redis_program(), "--replicaof", "127.0.0.1", str(own_redis.port))
    with Redis(port=replica.port) as client:
        until(lambda: client.info("replication")["master_link_status"] == "up")
    backend = RedisLocks(SETTINGS, url=redis.url(own_redis), wait_replicas=1, lease=LEASE)
    asked = claim(backend)
    assert asked.take() is None
    assert asked.release(finished=True)
    replica.process.send_signal(signal.SIGSTOP)

    with pytest.raises(LockUnavailable, match="0 of 1 replicas"):
        asked.take()

    assert not backend.holders(asked.name.key)
    replica.process.send_signal(signal.SIGCONT)
    assert isinstance(acquire.acquire_or_holders(claim(backend, asked.name.label), 20), Lease)
    backend.close()
    replica.stop()


def test_a_missing_password_is_named_and_a_given_one_is_not_shown():
    """The error says what to do; it never shows the URL."""
    server = redis.start(redis.redis_program(), password="hunter2")
    bare = RedisLocks(SETTINGS, url=redis.url(server))
    wrong = RedisLocks(SETTINGS, url=f"redis://:hunter3@127.0.0.1:{server.port}/0")
    right = RedisLocks(SETTINGS, url=f"redis://:hunter2@127.0.0.1:{server.port}/0")

    assert "wants another user or password" in refusal(bare)
    assert "hunter3" not in refusal(wrong)
    assert claim(right).take() is None
    for backend in (bare, wrong, right):
        backend.close()
    server.stop()


def test_a_database_without_tables_says_what_to_run(tmp_path):
    """Not a traceback from inside of a driver, and no waiting for tables to appear."""
    connections.settings["bare"] = {
        **connections.settings["default"],
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(tmp_path / "bare"),
    }
    backend = DatabaseLocks(SETTINGS, using="bare")
    with pytest.raises(LockTablesMissing, match=r"manage\.py migrate cloudrun_jobs --database bare"):
        acquire.acquire_or_holders(claim(backend), 20)

    (warning,) = backend.inspect()
    connections["bare"].close()
    backend.close()

    assert warning.id == "cloudrun_jobs.W021"


def test_the_errors_are_what_their_users_catch():
    """A timeout is a TimeoutError; a lost lease is no Exception."""
    assert issubclass(exceptions.LockTimeout, TimeoutError)
    assert not issubclass(exceptions.LeaseLost, Exception)
    assert issubclass(LockUnknown, LockUnavailable)


def test_a_database_that_is_away_is_not_a_traceback(tmp_path):
    """A server nobody runs: unavailable, with its name."""
    connections.settings["away"] = {**connections.settings["default"], **sql.postgres_settings(1)}
    backend = DatabaseLocks(SETTINGS, using="away")

    assert "The database 'away', which keeps the locks, took no connection" in refusal(backend)
