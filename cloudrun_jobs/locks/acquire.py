"""Waiting for a lock: with growing pauses while others hold it, and for a while when its server is away."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

from cloudrun_jobs.exceptions import LockTimeout, LockUnavailable, LockUnknown
from cloudrun_jobs.locks.base import Holder
from cloudrun_jobs.locks.lease import Lease
from cloudrun_jobs.locks.requests import LockRequest
from cloudrun_jobs.process.deferral import uninterruptible

GROWTH = 1.5
SERVER_OUTAGE_LIMIT = 30.0  # Seconds that a server may be away.
FIRST_RETRY = 0.1  # Seconds.


@uninterruptible
def try_once(claim: LockRequest) -> Lease | Sequence[Holder]:
    """Ask once for the lock."""
    sent = time.monotonic()
    holders = claim.take()
    return Lease(claim, sent) if holders is None else holders


def wait_for_lock(
    claim: LockRequest,
    *,
    timeout: float | None,
    initial_delay: float,
    max_delay: float,
    announce: Callable[[Sequence[Holder]], None] = lambda holders: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Lease:
    """Ask until the lock is given, or raise `LockTimeout` after so many seconds; None waits for ever.

    `announce` is told the holders once, if there is a wait. Raises `LockUnavailable` if the server is away for
    longer than its patience, `LockUnknown` if then a request of ours may have been carried out.
    """
    started, delay, announced = time.monotonic(), initial_delay, False
    while True:
        answer = acquire_or_holders(
            claim,
            SERVER_OUTAGE_LIMIT if timeout is None else min(SERVER_OUTAGE_LIMIT, _left(started, timeout)),
            sleep,
        )
        if isinstance(answer, Lease):
            return answer
        left = None if timeout is None else _left(started, timeout)
        if left == 0:
            raise _timed_out(claim, answer, timeout)
        if not announced:
            announce(answer)
            announced = True
        pause = delay * random.uniform(0.5, 1.0)  # noqa: S311  (spreads load, hides nothing)
        sleep(pause if left is None else min(pause, left))
        delay = min(delay * GROWTH, max_delay)


def acquire_or_holders(
    claim: LockRequest, patience: float, sleep: Callable[[float], None] = time.sleep
) -> Lease | Sequence[Holder]:
    """Ask until there is an answer, for at most so many seconds."""
    started, delay, unknown = time.monotonic(), FIRST_RETRY, False
    while True:
        try:
            return try_once(claim)
        except LockUnavailable as error:
            unknown = unknown or isinstance(error, LockUnknown)
            left = _left(started, patience)
            if left == 0:
                raise (LockUnknown if unknown else LockUnavailable)(f"{claim.name.label}: {error}") from error
        sleep(min(left, delay * random.uniform(0.5, 1.0)))  # noqa: S311
        delay *= GROWTH


def _left(started: float, timeout: float) -> float:
    return max(0.0, started + timeout - time.monotonic())


def _timed_out(claim: LockRequest, holders: Sequence[Holder], timeout: float | None) -> LockTimeout:
    lock, who = claim.name.label, "; ".join(map(str, holders)) or "others"
    return LockTimeout(f"Waited {timeout:g} s for the lock {lock!r}, held by {who}.", lock=lock, holders=holders)
