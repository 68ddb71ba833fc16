"""Locks in the memory of one process, for tests and for databases in memory."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from cloudrun_jobs.locks.base import Grant, Holder, LockBackend, Owner, available_slot
from cloudrun_jobs.locks.names import LockName


@dataclass(slots=True, kw_only=True)
class Leased:
    """A slot's lease, in seconds of the monotonic clock."""

    label: str
    owner: Owner
    token: int
    since: float
    until: float
    done: set[int] = field(default_factory=set)


# Shared by all instances, as one server would be.
_leases: dict[tuple[str, int], Leased] = {}
_tokens: dict[tuple[str, int], int] = {}
_released: deque[Grant] = deque(maxlen=1000)
_mutex = threading.Lock()


class LocalLocks(LockBackend):
    """Keeps locks in this process's memory."""

    is_shared = False

    def acquire(self, name: LockName, slots: int, owner: Owner, ttl: float) -> Grant | Sequence[Holder]:
        with _mutex:
            now = time.monotonic()
            live = {slot: leased for slot in range(slots) if (leased := _live(name.key, slot, now))}
            owners = {slot: leased.owner for slot, leased in live.items()}
            granted = (slot for slot, other in owners.items() if other.nonce == owner.nonce)
            if (slot := next(granted, None)) is not None:
                live[slot].until = now + ttl
            elif (slot := available_slot(owners, slots, owner)) is not None:
                _lease(name, slot, owner, ttl)
            else:
                return [_holder(name.key, slot, leased) for slot, leased in live.items()]
            return Grant(lock=name.key, slot=slot, nonce=owner.nonce, token=_tokens[name.key, slot])

    def renew(self, grant: Grant, ttl: float) -> bool:
        with _mutex:
            if leased := _own(grant):
                leased.until = time.monotonic() + ttl
            return leased is not None

    def release(self, grant: Grant) -> bool:
        with _mutex:
            if _own(grant):
                del _leases[grant.lock, grant.slot]
                _released.append(grant)
            return grant in _released

    def complete_task(self, grant: Grant, index: int, count: int) -> bool:
        with _mutex:
            leased = _own(grant)
            if leased is None:
                return False
            leased.done.add(index)
            if len(leased.done) < count:
                return False
            del _leases[grant.lock, grant.slot]
            return True

    def holders(self, prefix: str) -> Sequence[Holder]:
        with _mutex:
            now = time.monotonic()
            keys = sorted(key for key in _leases if key[0].startswith(prefix))
            return [_holder(*key, leased) for key in keys if (leased := _live(*key, now))]

    def release_slot(self, lock: str, slot: int, token: int) -> bool:
        with _mutex:
            leased = _live(lock, slot, time.monotonic())
            if leased is None or leased.token != token:
                return False
            del _leases[lock, slot]
            return True

    def release_holder(self, prefix: str, holder: str) -> int:
        with _mutex:
            now = time.monotonic()
            live = {key: _live(*key, now) for key in _leases if key[0].startswith(prefix)}
            held = [key for key, leased in live.items() if leased and leased.owner.holder == holder]
            for key in held:
                del _leases[key]
            return len(held)

    def exists(self, lock: str) -> bool:
        with _mutex:
            return any(key == lock for key, _ in _tokens)

    def fence(self, grant: Grant, using: str) -> bool:
        """Compare tokens. No other process can acquire the lock, and a test has the database for itself."""
        with _mutex:
            return _tokens.get((grant.lock, grant.slot)) == grant.token


def clear() -> None:
    """End all leases, as in a new process. For tests."""
    with _mutex:
        _leases.clear()


def _live(key: str, slot: int, now: float) -> Leased | None:
    leased = _leases.get((key, slot))
    return leased if leased and leased.until > now else None


def _own(grant: Grant) -> Leased | None:
    leased = _live(grant.lock, grant.slot, time.monotonic())
    return leased if leased and (leased.owner.nonce, leased.token) == (grant.nonce, grant.token) else None


def _lease(name: LockName, slot: int, owner: Owner, ttl: float) -> None:
    key, now = (name.key, slot), time.monotonic()
    _tokens[key] = max(_tokens.get(key, 0) + 1, time.time_ns() // 1000)
    _leases[key] = Leased(label=name.label, owner=owner, token=_tokens[key], since=now, until=now + ttl)


def _holder(key: str, slot: int, leased: Leased) -> Holder:
    offset = time.time() - time.monotonic()
    since, until = ((moment + offset) * 1e6 for moment in (leased.since, leased.until))
    return Holder.of(leased.owner, since, until, lock=key, label=leased.label, slot=slot, token=leased.token)
