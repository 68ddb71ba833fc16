"""A lock that is held: renewed in the background until it is released or lost."""

from __future__ import annotations

import math
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Protocol

from django.db import transaction

from cloudrun_jobs import environ
from cloudrun_jobs.exceptions import LeaseLost, LockMisused, LockUnavailable
from cloudrun_jobs.locks.requests import LockRequest
from cloudrun_jobs.locks.timer import timer
from cloudrun_jobs.process.deferral import uninterruptible
from cloudrun_jobs.signals import lease_lost, lease_renewal_failed

RENEWALS = 6  # In the time of a lease.
MARGIN = 1 / 8  # Of a lease: how much earlier than the server the holder takes it for ended.
GRACE = 1 / 12  # Of a lease: how long a holder that lost it may clean up.


class Watcher(Protocol):
    """Who wants to know how a lease fares. Called in threads of the lease."""

    def renewed(self, lease: Lease) -> None:
        """The lease's deadline has moved."""

    def lost(self, lease: Lease) -> None:
        """The lease was lost."""


class Lease:
    """A lock that is held.

    It is renewed in the background. `lost` is set, and `check()` raises, as soon as it may no longer be this
    process's: when the server says so, or when no renewal was confirmed for most of the lease. `token` grows
    with each holder of the lock, so that what you write to can refuse one that was overtaken.

    `check()`, `token` and `lost` may be used in any thread of the process.
    """

    def __init__(self, claim: LockRequest, sent: float) -> None:
        """Hold what `claim` has taken with a request that was sent at that moment of the monotonic clock."""
        self.name = claim.name.label
        self.slot = claim.grant.slot
        self.token = claim.grant.token
        self.lost = threading.Event()
        self.claim = claim
        self._process = os.getpid()
        self._mutex = threading.Lock()
        self._released = False
        self._reason = ""
        self._watcher: Watcher | None = None
        self._alarm: SimpleQueue[None] = SimpleQueue()  # Wakes the keeper.
        self._keeper: threading.Thread | None = None
        self.deadline = sent + claim.ttl * (1 - MARGIN)  # By the monotonic clock.
        self._first_renewal = sent + _pause(claim.ttl)
        timer.watch(self)

    def __repr__(self) -> str:
        state = "released" if self._released else "lost" if self.lost.is_set() else "held"
        return f"<Lease {self.name!r} slot {self.slot}, token {self.token}: {state}>"

    @property
    def kill_deadline(self) -> float:
        """The moment by which a holder that lost the lock must have ended: others may have it soon after."""
        return self.deadline + self.claim.ttl * GRACE

    def check(self) -> None:
        """Raise `LeaseLost` unless the lock is held. Asks nobody: it costs nothing."""
        self._check_use()
        if time.monotonic() >= self.deadline:
            self.mark_lost(self._too_late)
        if self.lost.is_set():
            raise self.lost_error

    @property
    def has_expired(self) -> bool:
        """Whether the lock is lost, or is now. Takes no locks and tells nobody: for signal handlers."""
        return self.lost.is_set() or (not self._released and time.monotonic() >= self.deadline)

    @property
    def lost_error(self) -> LeaseLost:
        """The error that says why the lock is lost."""
        return LeaseLost(f"The lock {self.name!r} is lost: {self._reason or self._too_late}.")

    @property
    def _too_late(self) -> str:
        return f"no renewal was confirmed for {self.claim.ttl * (1 - MARGIN):.3g} seconds"

    def idempotency_key(self, step: str) -> str:
        """Return a text that is the same in each attempt of this work, for services that know such keys."""
        task = environ.current_task()
        if task is None:
            return f"{self.name}:{self.token}:{step}"
        return f"{task.run_id or task.execution}:{task.index}:{step}"

    @contextmanager
    def transaction(self, using: str = "default") -> Iterator[None]:
        """Open a transaction in which nothing is written if another has taken the lock; then raise `LeaseLost`.

        Until it ends nobody can take the lock: keep it short. The lock must be kept in the database `using`.
        """
        with transaction.atomic(using):
            self.check()
            if not self.claim.backend.fence(self.claim.grant, using):
                self.mark_lost("another holder has taken it")
                self.check()
            yield

    @uninterruptible
    def release(self, *, finished: bool = True) -> bool:
        """Give the lock back; return False if it was lost before.

        With `finished=False` a task of several keeps its execution's lock for its next attempt. Raises
        `LockMisused` the second time, and `LockUnavailable`: the lease then ends by itself.
        """
        self._check_use()
        with self._mutex:
            self._released = True
        self._stop()
        return self.claim.release(finished=finished)

    def watch(self, watcher: Watcher) -> None:
        """Tell how the lease fares from now on, and at once if it is lost."""
        self._watcher = watcher
        if self.lost.is_set():
            watcher.lost(self)

    def renew_soon(self) -> None:
        """Renew now rather than when it is time. Takes no locks: for signal handlers."""
        self._first_renewal = -math.inf
        self._alarm.put(None)
        timer.wake()

    @uninterruptible
    def mark_lost(self, reason: str) -> None:
        """Take the lock for lost; what is said first counts."""
        with self._mutex:
            if self._released or self.lost.is_set():
                return
            self._reason = reason
            self.lost.set()
        self._stop()
        lease_lost.send_robust(type(self), lease=self, reason=reason)
        if self._watcher:
            self._watcher.lost(self)

    def next_deadline(self) -> float:
        """Return when the clock has to look after this lease."""
        return self.deadline if self._keeper else min(self._first_renewal, self.deadline)

    def on_deadline(self) -> None:
        """Start to renew when it is time, or take the lock for lost when it is too late."""
        if time.monotonic() >= self.deadline:
            self.mark_lost(self._too_late)
        elif self._keeper is None:
            self._keeper = threading.Thread(
                target=self._keep, name=f"cloudrun_jobs-lease-{self.name}", daemon=True
            )
            self._keeper.start()

    def _stop(self) -> None:
        timer.forget(self)
        self._alarm.put(None)

    @property
    def _over(self) -> bool:
        return self._released or self.lost.is_set()

    def _keep(self) -> None:
        """Renew until it is over. A thread of each lease's own: one that hangs harms no other lease."""
        while not self._over:
            pause = _pause(self.claim.ttl) if self._renew() else _pause(self.claim.ttl) / 4
            with suppress(Empty):
                self._alarm.get(timeout=pause)

    def _renew(self) -> bool:
        # Counted from before the request: the server may have extended the lease the moment it was sent.
        sent = time.monotonic()
        try:
            confirmed = self.claim.renew()
        except LockUnavailable as error:
            lease_renewal_failed.send_robust(type(self), lease=self, error=error)
            return False
        if not confirmed:
            self.mark_lost(
                "its server says that it has ended, was freed by hand, or is another's; or it lost its data"
            )
        elif time.monotonic() < self.deadline:
            self.deadline = sent + self.claim.ttl * (1 - MARGIN)
            if self._watcher:
                self._watcher.renewed(self)
        return True

    def _check_use(self) -> None:
        if os.getpid() != self._process:
            raise LockMisused(
                f"The lock {self.name!r} is held by process {self._process}, not by its child {os.getpid()}.",
                hint="Take locks after the fork.",
            )
        if self._released:
            raise LockMisused(f"The lock {self.name!r} was released before.")


def _pause(ttl: float) -> float:
    return ttl / RENEWALS * random.uniform(0.9, 1.1)  # noqa: S311  (spreads load, hides nothing)
