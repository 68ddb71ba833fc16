"""`LockManager`: locks for everybody's code."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cloudrun_jobs.exceptions import LockMisused, LockUnavailable
from cloudrun_jobs.locks import configured, names
from cloudrun_jobs.locks.acquire import try_once, wait_for_lock
from cloudrun_jobs.locks.base import Holder, LockBackend
from cloudrun_jobs.locks.lease import Lease
from cloudrun_jobs.locks.owner import new_owner
from cloudrun_jobs.locks.requests import SlotRequest
from cloudrun_jobs.signals import lease_renewal_failed


class LockManager:
    """A lock by name, that at most `parallelism` holders have at once, in all processes of this environment.

        with LockManager("monthly-report").lock(timeout=60) as lease:
            ...

    It may be shared between threads; each holds a lease of its own. Where the lock is kept is said by
    `CLOUDRUN_JOBS["LOCKS"]`.
    """

    def __init__(self, name: str, parallelism: int = 1) -> None:
        if isinstance(parallelism, bool) or not isinstance(parallelism, int) or not 1 <= parallelism <= 1000:
            raise ValueError(f"parallelism: expected a whole number from 1 to 1000, got {parallelism!r}.")
        names.lock_name(name)  # Raises for what can be no name.
        self.name = name
        self.parallelism = parallelism
        self._mine = threading.local()
        self._kept: tuple[object, LockBackend] | None = None

    def __repr__(self) -> str:
        return f"LockManager({self.name!r}, parallelism={self.parallelism})"

    @contextmanager
    def lock(
        self, timeout: float | None = 600, initial_delay: float = 1.0, max_delay: float = 30.0
    ) -> Iterator[Lease]:
        """Hold the lock while the block runs; see `await_lock()`.

        Raises `LeaseLost` at the block's end if the lock was lost before.
        """
        lease = self.await_lock(timeout, initial_delay, max_delay)
        try:
            yield lease
            if self._lease is lease:
                lease.check()
        finally:
            if self._lease is lease:
                self.release_lock()

    def await_lock(
        self, timeout: float | None = 600, initial_delay: float = 1.0, max_delay: float = 30.0
    ) -> Lease:
        """Wait for the lock and take it, until `release_lock()`.

        Asks again after `initial_delay` seconds, then after pauses that grow by half up to `max_delay`. Raises
        `LockTimeout` after `timeout` seconds, None waiting for ever, and `LockUnavailable` if the server that
        keeps the locks is away for more than half a minute.
        """
        for name, value in (("timeout", timeout), ("initial_delay", initial_delay), ("max_delay", max_delay)):
            if not (value is None and name == "timeout") and not (isinstance(value, int | float) and value >= 0):
                raise ValueError(f"{name}: expected seconds, 0 or more, got {value!r}.")
        claim = self._claim()
        self._lease = wait_for_lock(claim, timeout=timeout, initial_delay=initial_delay, max_delay=max_delay)
        return self._lease

    def try_lock(self) -> Lease | None:
        """Take the lock if it is free, until `release_lock()`. Raises `LockUnavailable`."""
        answer = try_once(self._claim())
        self._lease = answer if isinstance(answer, Lease) else None
        return self._lease

    def release_lock(self, raise_exception: bool = False) -> bool:
        """Give the lock back; return whether it was still held.

        With `raise_exception`, raises `LockMisused` if this thread does not hold the lock, and `LockUnavailable`
        if the server cannot be told; the lease then ends by itself.
        """
        lease, self._lease = self._lease, None
        if lease is None:
            if raise_exception:
                hint = "Each thread has leases of its own, and a lock is released once."
                raise LockMisused(f"This thread does not hold the lock {self.name!r}.", hint=hint)
            return False
        try:
            return lease.release()
        except LockUnavailable as error:
            if raise_exception:
                raise
            lease_renewal_failed.send_robust(type(lease), lease=lease, error=error)
            return False

    def holders(self) -> Sequence[Holder]:
        """Return who holds the lock."""
        return configured.current().holders(names.lock_name(self.name).key)

    @property
    def _lease(self) -> Lease | None:
        return getattr(self._mine, "lease", None)

    @_lease.setter
    def _lease(self, lease: Lease | None) -> None:
        self._mine.lease = lease

    def _claim(self) -> SlotRequest:
        if self._lease is not None and not self._lease.lost.is_set():
            hint = "Release it first, or take another slot with another LockManager."
            raise LockMisused(f"This thread holds the lock {self.name!r} already.", hint=hint)
        keeper = self._keeper()
        return SlotRequest(keeper, names.lock_name(self.name, keeper.settings), self.parallelism, new_owner())

    def _keeper(self) -> LockBackend:
        # To read the settings each time would take a third of a try.
        if self._kept is None or self._kept[0] is not configured.settings_generation:
            self._kept = (configured.settings_generation, configured.current())
        return self._kept[1]
