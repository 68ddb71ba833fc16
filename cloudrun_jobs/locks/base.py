"""What every keeper of locks can do, and the values it speaks in.

A lock has one slot or several. A slot is leased: it is its holder's until a moment of the server's clock, and
the holder moves that moment. All operations may be repeated after a lost answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
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
    """Who asks for a lock.

    The attempts of one task are one owner, and a later attempt takes over from an earlier one. The nonce is
    new for each request of a lock: who repeats it after a lost answer is known by it.
    """

    holder: str  # The execution, or "local:host:process:random" outside Cloud Run.
    nonce: str
    index: int = 0
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A slot that was leased: what proves it to the server."""

    lock: str  # The lock's key.
    slot: int
    nonce: str
    token: int  # Grows with each change of holder.


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds a slot, since when and until when by the server's clock."""

    lock: str
    label: str
    slot: int
    holder: str
    index: int
    attempt: int
    token: int
    since: datetime
    until: datetime

    def __str__(self) -> str:
        retry = f", attempt {self.attempt}" if self.attempt else ""
        return f"{self.holder} (task {self.index}{retry}) since {self.since:%F %T}, until {self.until:%F %T} UTC"


class Holders(Sequence[Holder]):
    """Who holds a lock, put together when somebody asks: few who are refused do."""

    def __init__(self, tell: Callable[[], Iterable[Holder]]) -> None:
        self._tell = tell

    @cached_property
    def _told(self) -> Sequence[Holder]:
        return tuple(self._tell())

    def __getitem__(self, index: Any) -> Any:
        return self._told[index]

    def __len__(self) -> int:
        return len(self._told)

    def __repr__(self) -> str:
        return repr(self._told)


class LockBackend(ABC):
    """A keeper of locks. `LOCKS["OPTIONS"]` of the settings arrive as keyword arguments; others are refused.

    `lease` is how many seconds a slot stays its holder's unless renewed, which happens six times in that time.
    """

    # Do processes on different machines meet here?
    is_shared = True

    def __init__(self, settings: Settings, *, lease: float = 120.0) -> None:
        if isinstance(lease, bool) or not isinstance(lease, int | float) or not 1 <= lease <= 3600:
            words = f"expected a lease of 1 to 3600 seconds, got {lease!r}."
            raise InvalidSettings(f"{conf.setting_name('LOCKS', 'OPTIONS')}: {words}")
        self.settings = settings
        self.lease = float(lease)

    @abstractmethod
    def acquire(self, name: LockName, slots: int, owner: Owner, ttl: float) -> Grant | Sequence[Holder]:
        """Lease one of the slots for `ttl` seconds, or return who holds them.

        Succeeds if a slot has no live lease, if an earlier attempt of the same task holds one, or if this very
        request got one before; then the token is the same again. Raises `LockUnavailable`.
        """

    @abstractmethod
    def renew(self, grant: Grant, ttl: float) -> bool:
        """Make the lease end `ttl` seconds from now; return False if it had ended, or is another's."""

    @abstractmethod
    def release(self, grant: Grant) -> bool:
        """End the lease; return False if it had ended, or is another's."""

    @abstractmethod
    def complete_task(self, grant: Grant, index: int, count: int) -> None:
        """Note that task `index` is done; end the lease with the last of `count`."""

    @abstractmethod
    def holders(self, prefix: str) -> Sequence[Holder]:
        """Return who holds the locks whose keys begin with `prefix`, by name and slot."""

    @abstractmethod
    def force_release(self, lock: str) -> Sequence[Holder]:
        """End the leases of a lock and of the tasks below it, and return whose they were."""

    @abstractmethod
    def exists(self, lock: str) -> bool:
        """Say whether this key is that of a lock which was taken once, and not so long ago as to be forgotten."""

    def fence(self, grant: Grant, using: str) -> bool:
        """Keep others from taking the lock while the transaction on `using` lasts; return False if one has."""
        raise LockMisused(
            f"{type(self).__name__} keeps locks outside of the database {using!r}, so cannot fence writes to it.",
            hint="Compare lease.token in the statement itself: UPDATE ... WHERE token <= the lease's.",
        )

    def prune(self, older_than: timedelta) -> int:
        """Forget locks that nobody has held for so long; return how many slots. Their tokens grow all the same.

        Does nothing where the server forgets by itself.
        """
        return 0

    def check(self) -> Iterable[CheckMessage]:
        """Return system check messages about the configuration."""
        return []

    def inspect(self) -> Iterable[CheckMessage]:
        """Ask the server, and return check messages about what it cannot promise."""
        return []

    def close(self) -> None:  # noqa: B027  (memory needs none)
        """Close connections that are idle."""


def moment(microseconds: float) -> datetime:
    """Return the time that lies so many microseconds after the beginning of 1970."""
    return EPOCH + timedelta(microseconds=microseconds)
