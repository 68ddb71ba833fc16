"""Renew a lease in the background until it is released or lost."""

from __future__ import annotations

import math
import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

from cloudrun_jobs.exceptions import LeaseLost, LockMisused
from cloudrun_jobs.locks.lease import Lease
from cloudrun_jobs.locks.requests import LockRequest
from cloudrun_jobs.locks.timer import timer
from cloudrun_jobs.process.deferral import uninterruptible
from cloudrun_jobs.signals import lease_lost, lease_renewal_failed

RENEWALS_PER_LEASE = 6
DEADLINE_MARGIN = 1 / 8  # A lease ends this fraction earlier for its holder than for the server.


class LeaseKeeper:
    """Renews one lease, and marks it as lost when it may no longer be this process's."""

    def __init__(self, request: LockRequest, sent: float) -> None:
        """Keep what `request` acquired. `sent` is when it was sent, by the monotonic clock."""
        self.request = request
        self.name = request.name.label
        self.lost = threading.Event()
        self.deadline = self._deadline_after(sent)  # Without another renewal, by the monotonic clock.
        self._process = os.getpid()
        self._mutex = threading.Lock()
        self._released = False
        self._reason = ""
        self._on_renewed: Callable[[], object] = _do_nothing
        self._on_lost: Callable[[], object] = _do_nothing
        self._alarm: SimpleQueue[None] = SimpleQueue()  # Wakes the thread.
        self._thread: threading.Thread | None = None
        self._first_renewal = sent + self._pause()
        timer.watch(self)

    @property
    def lease(self) -> Lease:
        # Built when used: kept here, it would make a cycle that only the garbage collector frees.
        return Lease(self)

    @property
    def has_expired(self) -> bool:
        """True if the lease is lost, or has ended just now. Takes no Python lock: for signal handlers."""
        return self.lost.is_set() or (not self._released and time.monotonic() >= self.deadline)

    @property
    def lost_error(self) -> LeaseLost:
        return LeaseLost(f"The lock {self.name!r} is lost: {self._reason or self._expired}.")

    @property
    def _expired(self) -> str:
        return f"no renewal was confirmed for {self.request.ttl * (1 - DEADLINE_MARGIN):.3g} seconds"

    def check(self) -> None:
        """Raise `LeaseLost` unless the lock is held."""
        self._check_use()
        if time.monotonic() >= self.deadline:
            self.mark_lost(self._expired)
        if self.lost.is_set():
            raise self.lost_error

    def fence(self, using: str) -> None:
        """Block other holders until the transaction on `using` ends. Raises `LeaseLost`."""
        self.check()
        if not self.request.backend.fence(self.request.grant, using):
            self.mark_lost("another holder has acquired it")
            self.check()

    @uninterruptible
    def release(self, *, finished: bool = True) -> bool:
        """Release the lock; return False if it was lost before.

        With `finished=False`, a task of several keeps its execution's slot for its next attempt. Raises
        `LockMisused` the second time, and `LockUnavailable`: the lease then expires.
        """
        self._check_use()
        with self._mutex:
            self._released = True
        self._stop()
        return self.request.release(finished=finished)

    def try_release(self, *, finished: bool = True) -> bool:
        """Release the lock; return False if it was lost before or its server does not release it."""
        self._check_use()
        try:
            return self.release(finished=finished)
        except Exception as error:  # noqa: BLE001  (work that is done does not fail because of it)
            lease_renewal_failed.send_robust(Lease, lease=self.lease, error=error)
            return False

    @property
    def left(self) -> float:
        """The seconds for which the server may count the lease, without another renewal."""
        return max(0.0, self.deadline + self.request.ttl * DEADLINE_MARGIN - time.monotonic())

    def watch(self, *, on_renewed: Callable[[], object], on_lost: Callable[[], object]) -> None:
        """Call these after a renewal and after the loss, in threads of the lease; `on_lost` now if it is lost."""
        self._on_renewed, self._on_lost = on_renewed, on_lost
        if self.lost.is_set():
            on_lost()

    def renew_soon(self) -> None:
        """Renew without waiting for the next interval. Takes no Python lock: for signal handlers."""
        self._first_renewal = -math.inf
        self._alarm.put(None)
        timer.wake()

    @uninterruptible
    def mark_lost(self, reason: str) -> None:
        """Mark the lease as lost; the first reason is kept."""
        with self._mutex:
            if self._is_over:
                return
            self._reason = reason
            self.lost.set()
        self._stop()
        lease_lost.send_robust(Lease, lease=self.lease, reason=reason)
        self._on_lost()

    def next_deadline(self) -> float:
        """Return when the timer has to call `on_deadline()`."""
        return self.deadline if self._thread else min(self._first_renewal, self.deadline)

    def on_deadline(self) -> None:
        """Start the renewals, or mark the lease as lost if it has expired."""
        if time.monotonic() >= self.deadline:
            self.mark_lost(self._expired)
        elif self._thread is None:
            self._first_renewal = time.monotonic() + self._pause() / 4  # If the thread cannot start now.
            # A thread for each lease: one that hangs delays no other lease.
            name = f"cloudrun_jobs-lease-{self.name}"
            thread = threading.Thread(target=self._keep, name=name, daemon=True)
            thread.start()
            self._thread = thread

    def _stop(self) -> None:
        timer.unwatch(self)
        self._alarm.put(None)

    @property
    def _is_over(self) -> bool:
        return self._released or self.lost.is_set()

    def _keep(self) -> None:
        while not self._is_over:
            pause = self._pause()
            try:
                self._renew()
            except Exception as error:  # noqa: BLE001  (whatever it is, the lease has not ended yet)
                lease_renewal_failed.send_robust(Lease, lease=self.lease, error=error)
                pause /= 4
            with suppress(Empty):
                self._alarm.get(timeout=pause)

    def _renew(self) -> None:
        # Counted from before the request: the server may have extended the lease the moment it was sent.
        sent = time.monotonic()
        confirmed = self.request.renew()
        if not confirmed:
            self.mark_lost("it expired, was released by hand or has another holder, or the server lost its data")
        elif time.monotonic() < self.deadline:
            self.deadline = self._deadline_after(sent)
            self._on_renewed()

    def _deadline_after(self, sent: float) -> float:
        return sent + self.request.ttl * (1 - DEADLINE_MARGIN)

    def _pause(self) -> float:
        return self.request.ttl / RENEWALS_PER_LEASE * random.uniform(0.9, 1.1)  # noqa: S311  (jitter)

    def _check_use(self) -> None:
        if os.getpid() != self._process:
            message = f"The lock {self.name!r} is held by process {self._process}, not by its child."
            raise LockMisused(message, hint="Acquire locks after the fork.")
        if self._released:
            raise LockMisused(f"The lock {self.name!r} was released before.")


def _do_nothing() -> None:
    """Ignore an event of a lease that is not watched."""
