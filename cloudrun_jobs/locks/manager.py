"""`LockManager`: locks for any code."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cloudrun_jobs.exceptions import LockMisused, LockUnavailable
from cloudrun_jobs.locks import configured, names
from cloudrun_jobs.locks.acquire import release, try_once, wait_for_lock
from cloudrun_jobs.locks.base import Holder, LockBackend
from cloudrun_jobs.locks.keeper import LeaseKeeper
from cloudrun_jobs.locks.lease import Lease
from cloudrun_jobs.locks.requests import SlotRequest, new_owner
from cloudrun_jobs.signals import lease_renewal_failed


class LockManager:
    """A named lock for at most `parallelism` holders at once, across all processes of this environment.

        with LockManager("monthly-report").lock(timeout=60) as lease:
            ...

    A manager may be shared between threads: each thread holds a lease of its own. `CLOUDRUN_JOBS["LOCKS"]` names
    the server. Raises `ValueError` for an empty name, or a parallelism outside 1 to 1000.
    """

    def __init__(self, name: str, parallelism: int = 1) -> None:
        if isinstance(parallelism, bool) or not isinstance(parallelism, int) or not 1 <= parallelism <= 1000:
            raise ValueError(f"parallelism: expected a whole number from 1 to 1000, got {parallelism!r}.")
        names.lock_name(name)  # Raises for an invalid name.
        #: The lock's name.
        self.name = name
        #: The number of its slots.
        self.parallelism = parallelism
        self._thread = threading.local()
        self._cached: tuple[object, LockBackend] | None = None

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
        keeper = self._keeper
        try:
            yield lease
            if self._keeper is keeper:
                lease.check()
        finally:
            if self._keeper is keeper:
                self.release_lock()

    def await_lock(
        self, timeout: float | None = 600, initial_delay: float = 1.0, max_delay: float = 30.0
    ) -> Lease:
        """Wait for the lock, and hold it until `release_lock()`.

        Retries after `initial_delay` seconds, then after pauses that grow by half up to `max_delay`. Raises
        `LockTimeout` after `timeout` seconds (never if it is None), and `LockUnavailable` if the lock server is
        unavailable for half a minute.
        """
        for name, value in (("timeout", timeout), ("initial_delay", initial_delay), ("max_delay", max_delay)):
            if not (value is None and name == "timeout") and not (isinstance(value, int | float) and value >= 0):
                raise ValueError(f"{name}: expected seconds, 0 or more, got {value!r}.")
        request = self._request()
        self._keeper = wait_for_lock(request, timeout=timeout, initial_delay=initial_delay, max_delay=max_delay)
        return self._keeper.lease

    def try_lock(self) -> Lease | None:
        """Acquire the lock if it is free, and hold it until `release_lock()`. Raises `LockUnavailable`."""
        answer = try_once(self._request())
        self._keeper = answer if isinstance(answer, LeaseKeeper) else None
        return self._keeper.lease if self._keeper else None

    def release_lock(self, raise_exception: bool = False) -> bool:
        """Release the lock; return True if it was still held.

        While the lock server is unavailable, the release is repeated for at most half a minute. With
        `raise_exception`, raises `LockMisused` if this thread does not hold the lock, and `LockUnavailable` if
        the server remains unavailable; the lease then expires.
        """
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            if raise_exception:
                hint = "Each thread has its own leases, and can release a lock only once."
                raise LockMisused(f"This thread does not hold the lock {self.name!r}.", hint=hint)
            return False
        try:
            return release(keeper)
        except LockUnavailable as error:
            if raise_exception:
                raise
            lease_renewal_failed.send_robust(Lease, lease=keeper.lease, error=error)
            return False

    def holders(self) -> Sequence[Holder]:
        """Return the lock's holders."""
        return configured.current().holders(names.lock_name(self.name).key)

    @property
    def _keeper(self) -> LeaseKeeper | None:
        """The keeper of this thread's lease."""
        return getattr(self._thread, "keeper", None)

    @_keeper.setter
    def _keeper(self, keeper: LeaseKeeper | None) -> None:
        self._thread.keeper = keeper

    def _request(self) -> SlotRequest:
        if self._keeper is not None and not self._keeper.lost.is_set():
            hint = "Release it first, or acquire another slot with another LockManager."
            raise LockMisused(f"This thread holds the lock {self.name!r} already.", hint=hint)
        backend = self._backend()
        return SlotRequest(backend, names.lock_name(self.name, backend.settings), self.parallelism, new_owner())

    def _backend(self) -> LockBackend:
        # Reading the settings each time would take a third of a try.
        if self._cached is None or self._cached[0] is not configured.settings_generation:
            self._cached = (configured.settings_generation, configured.current())
        return self._cached[1]
