"""Locks in Redis or Valkey: one script per operation, leases by the server's own expiry.

A slot is a hash that expires with its lease, so a full server can still renew and release. The token outlives it
in a key of its own, and is at least the server's clock in microseconds: it grows even after a loss of data.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha1
from typing import Any

from django.core.checks import CheckMessage, Warning  # noqa: A004
from redis import Connection, Redis, exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from cloudrun_jobs import conf
from cloudrun_jobs.conf import Settings
from cloudrun_jobs.exceptions import InvalidSettings, LockUnavailable, LockUnknown
from cloudrun_jobs.locks.base import EPOCH, Grant, Holder, Holders, LockBackend, Owner
from cloudrun_jobs.locks.names import LockName

TOKEN_RETENTION_MS = 24 * 3600 * 1000

# How many releases of a slot the server remembers, and for how long: a release may be repeated after a lost reply.
REMEMBERED_RELEASES, RELEASE_RETENTION_MS = 20, 600 * 1000


class Script:
    """A script, and the digest by which the server finds it once it has run."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = sha1(text.encode(), usedforsecurity=False).hexdigest()


ACQUIRE = Script(
    f"local TOKEN_RETENTION_MS = {TOKEN_RETENTION_MS}"
    """
local held, free, takeover = {}, nil, nil
for i = 2, #KEYS do
  local lease = redis.call('HMGET', KEYS[i], 'nonce', 'token', 'holder', 'index', 'attempt', 'label', 'since')
  if not lease[1] then
    free = free or i
  elseif lease[1] == ARGV[6] then
    redis.call('PEXPIRE', KEYS[i], ARGV[1])
    return {i - 2, lease[2]}
  else
    if lease[3] == ARGV[3] and lease[4] == ARGV[4] and tonumber(lease[5]) < tonumber(ARGV[5]) then
      takeover = takeover or i
    end
    held[#held + 1] = {i - 2, redis.call('PTTL', KEYS[i]), unpack(lease, 2)}
  end
end
local time = redis.call('TIME')
local i = takeover or free
if not i then
  return cjson.encode({time[1], time[2], held})  -- One text: its parts would be parsed one by one.
end
local now = time[1] * 1000000 + time[2]
local since = string.format('%.0f', now)
local token = string.format('%.0f', math.max((tonumber(redis.call('GET', KEYS[1])) or 0) + 1, now))
redis.call('SET', KEYS[1], token, 'PX', ARGV[1] + TOKEN_RETENTION_MS)
redis.call('HSET', KEYS[i], 'label', ARGV[2], 'holder', ARGV[3], 'index', ARGV[4], 'attempt', ARGV[5],
  'nonce', ARGV[6], 'token', token, 'since', since)
redis.call('PEXPIRE', KEYS[i], ARGV[1])
return {i - 2, token}
"""
)

IS_OWN = """
local lease = redis.call('HMGET', KEYS[2], 'nonce', 'token')
if lease[1] ~= ARGV[1] or lease[2] ~= ARGV[2] then return 0 end
"""

RENEW = Script(f"""{IS_OWN}
redis.call('PEXPIRE', KEYS[1], ARGV[3] + {TOKEN_RETENTION_MS})
return redis.call('PEXPIRE', KEYS[2], ARGV[3])
""")

# A full server still deletes the lease: only the memory of it fails.
RELEASE = Script(f"""
local lease = redis.call('HMGET', KEYS[2], 'nonce', 'token')
if lease[1] == ARGV[1] and lease[2] == ARGV[2] then
  redis.call('DEL', KEYS[2])
  redis.pcall('LPUSH', KEYS[3], ARGV[3])
  redis.pcall('LTRIM', KEYS[3], 0, {REMEMBERED_RELEASES - 1})
  redis.pcall('PEXPIRE', KEYS[3], {RELEASE_RETENTION_MS})
  return 1
end
for _, receipt in ipairs(redis.call('LRANGE', KEYS[3], 0, -1)) do
  if receipt == ARGV[3] then return 1 end
end
return 0
""")

COMPLETE_TASK = Script(f"""{IS_OWN}
redis.call('SADD', KEYS[3], ARGV[3])
if redis.call('SCARD', KEYS[3]) < tonumber(ARGV[4]) then
  redis.call('PEXPIRE', KEYS[3], {TOKEN_RETENTION_MS})
  return 0
end
redis.call('DEL', KEYS[2], KEYS[3])
return 1
""")

RELEASE_SLOT = Script("""
return redis.call('HGET', KEYS[1], 'token') == ARGV[1] and redis.call('DEL', KEYS[1]) or 0
""")

RELEASE_HOLDER = Script("""
local released = 0
for _, key in ipairs(KEYS) do
  if redis.call('HGET', key, 'holder') == ARGV[1] then released = released + redis.call('DEL', key) end
end
return released
""")

# The errors of a server that rejects requests, and their meaning.
REJECTIONS: tuple[tuple[type[Exception] | None, str, str], ...] = (
    (exceptions.OutOfMemoryError, "OOM", "is full: it reached maxmemory and may not evict. Give it more memory"),
    (exceptions.ReadOnlyError, "READONLY", "is a read-only replica. Give the address of the primary"),
    (exceptions.MasterDownError, "MASTERDOWN", "is a replica that lost its primary"),
    (exceptions.BusyLoadingError, "LOADING", "is still loading its data"),
    (exceptions.AuthenticationError, "NOAUTH", "requires another user or password. Put them into the URL"),
    (exceptions.AuthenticationError, "WRONGPASS", "requires another user or password. Put them into the URL"),
    (exceptions.NoPermissionError, "NOPERM", "denies this user the command. Allow scripts and keys crj1:*"),
    (exceptions.MovedError, "MOVED", "is part of a cluster. Give the address of a standalone server"),
    (exceptions.ClusterDownError, "CLUSTERDOWN", "belongs to a cluster that is down"),
    (None, "MISCONF", "cannot save to its disk, so it accepts no writes"),
    (None, "NOREPLICAS", "has fewer replicas than its configuration requires"),
)


class RedisLocks(LockBackend):
    """Keeps locks in a Redis, 6 or newer, or a Valkey.

    `url` as redis-py takes it: `redis://`, `rediss://` for TLS, `unix://`. With `wait_replicas`, a lock is granted
    only once that many replicas have confirmed it; without it, a failover can grant it twice.
    """

    def __init__(self, settings: Settings, *, url: str, wait_replicas: int = 0, **options: Any) -> None:
        super().__init__(settings, **options)
        self.wait_replicas = wait_replicas
        timeout = min(5.0, self.lease / 4)
        self._timeout = timeout
        try:
            self.client: Redis = Redis.from_url(
                url,
                decode_responses=True,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                retry=Retry(NoBackoff(), 0),  # `_call()` retries, and distinguishes lost replies.
            )
        except (ValueError, AttributeError) as error:
            raise InvalidSettings(f"{conf.setting_name('LOCKS', 'OPTIONS', 'url')}: {error}.") from None
        self._idle: deque[Connection] = deque()

    def acquire(self, name: LockName, slots: int, owner: Owner, ttl: float) -> Grant | Sequence[Holder]:
        keys = [_key(name.key, "token"), *(_key(name.key, slot) for slot in range(slots))]
        arguments = [_ms(ttl), name.label, owner.holder, owner.index, owner.attempt, owner.nonce]
        answer = self._run(ACQUIRE, keys, arguments)
        if isinstance(answer, str):
            return Holders(partial(_parse_holders, name.key, answer))
        slot, token = answer
        grant = Grant(lock=name.key, slot=slot, nonce=owner.nonce, token=int(token))
        self._wait_for_replicas(grant, ttl)
        return grant

    def renew(self, grant: Grant, ttl: float) -> bool:
        return bool(self._run(RENEW, _keys(grant), [grant.nonce, grant.token, _ms(ttl)]))

    def release(self, grant: Grant) -> bool:
        keys = [*_keys(grant), _key(grant.lock, f"{grant.slot}:released")]
        return bool(self._run(RELEASE, keys, [grant.nonce, grant.token, grant.receipt]))

    def complete_task(self, grant: Grant, index: int, count: int) -> bool:
        keys = [*_keys(grant), _key(grant.lock, f"{grant.slot}:done:{grant.token}")]
        return bool(self._run(COMPLETE_TASK, keys, [grant.nonce, grant.token, index, count]))

    def holders(self, prefix: str) -> Sequence[Holder]:
        found = self._read_all(self._slots(prefix.replace("/", "}/", 1)))
        return sorted(found, key=lambda holder: (holder.label, holder.slot))

    def release_slot(self, lock: str, slot: int, token: int) -> bool:
        return bool(self._run(RELEASE_SLOT, [_key(lock, slot)], [token]))

    def release_holder(self, prefix: str, holder: str) -> int:
        keys = self._slots(prefix)
        return int(self._run(RELEASE_HOLDER, keys, [holder])) if keys else 0

    def exists(self, lock: str) -> bool:
        return bool(self._call(lambda: self.client.exists(_key(lock, "token"))))

    def inspect(self) -> Iterable[CheckMessage]:
        policy = self._call(lambda: self.client.info("memory")).get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            yield Warning(
                f"{self} may evict locks: its maxmemory-policy is {policy!r}.",
                hint="Set maxmemory-policy to noeviction, or use a separate server for the locks.",
                id="cloudrun_jobs.W020",
            )

    def server_time(self) -> datetime | None:
        seconds, microseconds = self._call(self.client.time)
        return EPOCH + timedelta(seconds=seconds, microseconds=microseconds)

    def close(self) -> None:
        self._forget_connections()
        self.client.close()

    def _forget_connections(self) -> None:
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()  # Another thread may take the last one at any moment.
                connection.disconnect()
                self.client.connection_pool.release(connection)

    def __str__(self) -> str:
        """Return the address of the server, without the password of its URL."""
        given = self.client.connection_pool.connection_kwargs
        address = given.get("path") or f"{given.get('host', 'localhost')}:{given.get('port', 6379)}"
        return f"Redis at {address}/{given.get('db') or 0}"

    def _slots(self, prefix: str) -> list[str]:
        found = self._call(lambda: sorted(self.client.scan_iter(f"{{{prefix}*", count=1000)))
        return [key for key in found if key.rpartition(":")[2].isdigit() and ":done:" not in key]

    def _read_all(self, keys: Sequence[str]) -> list[Holder]:
        return self._call(partial(self._read, keys)) if keys else []

    def _read(self, keys: Sequence[str]) -> list[Holder]:
        """Return the holders of these slots, with one request."""
        with self.client.pipeline() as pipe:
            pipe.time()
            for key in keys:
                pipe.pttl(key)
                pipe.hmget(key, "token", "holder", "index", "attempt", "label", "since")
            (seconds, microseconds), *answers = pipe.execute()
        now, found = seconds * 10**6 + microseconds, []
        for key, left, lease in zip(keys, answers[::2], answers[1::2], strict=True):
            lock, _, slot = key.rpartition(":")
            if lease[0]:
                found.append(_holder(lock.replace("{", "").replace("}", ""), now, int(slot), left, *lease))
        return found

    def _wait_for_replicas(self, grant: Grant, ttl: float) -> None:
        if not self.wait_replicas:
            return
        # WAIT covers the last write of its own connection, so that connection writes the lease once more.
        with self.client.pipeline(transaction=False) as pipe:
            pipe.eval(RENEW.text, 2, *_keys(grant), grant.nonce, grant.token, _ms(ttl))
            pipe.wait(self.wait_replicas, _ms(self._timeout / 2))
            confirmed = self._call(pipe.execute)[-1]
        if confirmed < self.wait_replicas:
            self.release(grant)
            replicas = f"{confirmed} of {self.wait_replicas} replicas of {self}"
            raise LockUnavailable(f"{replicas} confirmed the lock, so it was released.")

    def _run(self, script: Script, keys: list[str], arguments: list[Any]) -> Any:
        return self._call(partial(self._send, script, len(keys), *keys, *arguments))

    def _send(self, script: Script, *arguments: Any) -> Any:
        """Run a script on a connection outside the pool, whose checks cost as much as a reply."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self.client.connection_pool.get_connection()
        try:
            answer = _answer(connection, script, arguments)
        except BaseException:
            connection.disconnect()
            self.client.connection_pool.release(connection)
            raise
        self._idle.append(connection)
        return answer

    def _call(self, request: Callable[[], Any]) -> Any:
        """Send a request, and once more on a new connection if the first one failed."""
        try:
            return request()
        except (exceptions.ConnectionError, exceptions.TimeoutError) as first:
            if _was_rejected(first):
                raise self._unavailable(first) from first
        except exceptions.RedisError as error:
            raise self._unavailable(error) from error
        self._forget_connections()  # The idle connections may have failed too.
        try:
            return request()
        except exceptions.RedisError as error:
            raise LockUnknown(f"{self} did not reply, and may have executed the request: {error}.") from error

    def _unavailable(self, error: exceptions.RedisError) -> LockUnavailable:
        for kind, code, meaning in REJECTIONS:
            if (kind and isinstance(error, kind)) or code in str(error):
                return LockUnavailable(f"{self} {meaning}. Its reply: {error}")
        return LockUnavailable(f"{self} failed: {error}")


def _answer(connection: Connection, script: Script, arguments: Sequence[Any]) -> Any:
    try:
        connection.send_command("EVALSHA", script.sha, *arguments)
        return connection.read_response()
    except exceptions.NoScriptError:
        connection.send_command("EVAL", script.text, *arguments)
        return connection.read_response()


def _was_rejected(error: BaseException | None) -> bool:
    """Return True if the server cannot have executed the request."""
    if isinstance(
        error, exceptions.AuthenticationError | exceptions.BusyLoadingError | exceptions.MasterDownError
    ):
        return True
    while error is not None:
        if isinstance(error, ConnectionRefusedError | FileNotFoundError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _key(lock: str, part: object) -> str:
    """Put the lock's key in braces, the hash tag of a cluster. A task's path follows them."""
    parent, slash, path = lock.partition("/")
    return f"{{{parent}}}{slash}{path}:{part}"


def _keys(grant: Grant) -> list[str]:
    return [_key(grant.lock, "token"), _key(grant.lock, grant.slot)]


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _parse_holders(lock: str, answer: str) -> list[Holder]:
    seconds, microseconds, held = json.loads(answer)
    now = int(seconds) * 10**6 + int(microseconds)
    return [_holder(lock, now, *lease) for lease in held]


def _holder(lock: str, now: int, slot: int, left: int, token: str, *fields: str) -> Holder:
    holder, index, attempt, label, since = fields
    owner = Owner(holder=holder, nonce="", index=int(index), attempt=int(attempt))
    until = now + max(left, 0) * 1000
    return Holder.of(owner, int(since), until, lock=lock, label=label, slot=slot, token=int(token))
