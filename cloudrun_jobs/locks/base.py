"""The interface of lock backends, and their values.

A lock has one slot or several. A slot is leased to its holder until a time of the server's clock, and renewed. All
operations may be repeated after a lost reply.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from django.core.checks import CheckMessage

from cloudrun_jobs import conf
from cloudrun_jobs.conf import Settings
from cloudrun_jobs.exceptions import InvalidSettings, LockMisused
from cloudrun_jobs.locks.names import LockName

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The process that requests a lock.

    The attempts of one task are one owner, and a later attempt takes over from an earlier one. The nonce is new
    for each request, and identifies a repetition of it after a lost reply.
    """

    holder: str  # The execution, or "local:host:process:random" outside Cloud Run.
    nonce: str
    index: int = 0
    attempt: int = 0

    def supersedes(self, other: Owner) -> bool:
        """Return True if this is a later attempt of the same task."""
        return (self.holder, self.index) == (other.holder, other.index) and self.attempt > other.attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A leased slot, and the proof of it for the server."""

    lock: str  # The lock's key.
    slot: int
    nonce: str
    token: int  # Grows with each change of holder.

    @property
    def receipt(self) -> str:
        """The text by which a slot remembers that this grant was released."""
        return f"{self.token} {self.nonce};"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The holder of a slot, with times of the server's clock."""

    lock: str
    label: str
    slot: int
    holder: str
    index: int
    attempt: int
    token: int
    since: datetime
    until: datetime

    @classmethod
    def of(cls, owner: Owner, since_us: float, until_us: float, **slot: Any) -> Holder:
        """Return the holder for an owner, with times in microseconds since 1970."""
        since, until = (EPOCH + timedelta(microseconds=time) for time in (since_us, until_us))
        values = {"index": owner.index, "attempt": owner.attempt, "since": since, "until": until, **slot}
        return cls(holder=owner.holder, **values)

    def __str__(self) -> str:
        retry = f", attempt {self.attempt}" if self.attempt else ""
        return f"{self.holder} (task {self.index}{retry}) since {self.since:%F %T}, until {self.until:%F %T} UTC"


class Holders(Sequence[Holder]):
    """The holders of a lock, built when first used: most callers do not look at them."""

    def __init__(self, build: Callable[[], Iterable[Holder]]) -> None:
        self._build = build

    @cached_property
    def _holders(self) -> Sequence[Holder]:
        return tuple(self._build())

    def __getitem__(self, index: Any) -> Any:
        return self._holders[index]

    def __len__(self) -> int:
        return len(self._holders)

    def __repr__(self) -> str:
        return repr(self._holders)


class LockBackend(ABC):
    """Keeps locks. `LOCKS["OPTIONS"]` of the settings are its keyword arguments; unknown ones are an error.

    `lease` is how many seconds a slot is held without a renewal. There are six renewals in that time.
    """

    # Does the backend keep locks that processes on different machines share?
    is_shared = True

    def __init__(self, settings: Settings, *, lease: float = 120.0) -> None:
        if isinstance(lease, bool) or not isinstance(lease, int | float) or not 1 <= lease <= 3600:
            message = f"expected a lease of 1 to 3600 seconds, got {lease!r}."
            raise InvalidSettings(f"{conf.setting_name('LOCKS', 'OPTIONS')}: {message}")
        self.settings = settings
        self.lease = float(lease)

    @abstractmethod
    def acquire(self, name: LockName, slots: int, owner: Owner, ttl: float) -> Grant | Sequence[Holder]:
        """Lease one of the slots for `ttl` seconds, or return their holders.

        Succeeds if a slot has no live lease, if an earlier attempt of the same task holds one, or if this request
        was granted before; the token is then the same. Raises `LockUnavailable`.
        """

    @abstractmethod
    def renew(self, grant: Grant, ttl: float) -> bool:
        """Extend the lease to `ttl` seconds from now; return False if it had ended or has another holder."""

    @abstractmethod
    def release(self, grant: Grant) -> bool:
        """End the lease; return False if it had expired or was taken away.

        A repetition returns True as well: the reply to the request that ended the lease may be lost.
        """

    @abstractmethod
    def complete_task(self, grant: Grant, index: int, count: int) -> bool:
        """Record that task `index` is done; with the last of `count` tasks, end the lease and return True."""

    @abstractmethod
    def holders(self, prefix: str) -> Sequence[Holder]:
        """Return the holders of the locks whose keys begin with `prefix`, by name and slot."""

    @abstractmethod
    def release_slot(self, lock: str, slot: int, token: int) -> bool:
        """End the lease of a slot that has this token; return False if it had ended or has another holder."""

    @abstractmethod
    def release_holder(self, prefix: str, holder: str) -> int:
        """End the leases that a holder has of locks whose keys begin with `prefix`; return their number."""

    @abstractmethod
    def exists(self, lock: str) -> bool:
        """Return True if the lock was acquired before, and not pruned since."""

    def fence(self, grant: Grant, using: str) -> bool:
        """Block other holders until the transaction on `using` ends; return False if there is one already."""
        raise LockMisused(
            f"{type(self).__name__} keeps no locks in the database {using!r}, so it cannot fence writes to it.",
            hint="Compare lease.token in the statement itself: UPDATE ... WHERE token <= the lease's.",
        )

    def prune(self, older_than: timedelta) -> int:
        """Delete locks not held for that long; return the number of slots. Their tokens continue to increase.

        Does nothing if the server expires them.
        """
        return 0

    def check(self) -> Iterable[CheckMessage]:
        """Return system check messages about the configuration."""
        return []

    def inspect(self) -> Iterable[CheckMessage]:
        """Query the server; return check messages about it."""
        return []

    def server_time(self) -> datetime | None:
        """Return the time of the server's clock; None if there is no server."""
        return None

    def close(self) -> None:  # noqa: B027  (memory has none)
        """Close idle connections."""


def available_slot(live: Mapping[int, Owner], slots: int, owner: Owner) -> int | None:
    """Return a slot to take. That of the task's earlier attempt comes first: it would stay leased otherwise."""
    takeover = (slot for slot, other in live.items() if owner.supersedes(other))
    return next(takeover, next((slot for slot in range(slots) if slot not in live), None))
