"""Acquire a lock: wait with back-off while it is held, and for a while when its server is unavailable."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from cloudrun_jobs import backoff
from cloudrun_jobs.exceptions import LockTimeout, LockUnavailable, LockUnknown
from cloudrun_jobs.locks.base import Holder
from cloudrun_jobs.locks.keeper import LeaseKeeper
from cloudrun_jobs.locks.requests import LockRequest
from cloudrun_jobs.process.deferral import uninterruptible

BACKOFF_FACTOR = 1.5
SERVER_OUTAGE_LIMIT = 30.0  # seconds
FIRST_RETRY_DELAY = 0.1  # seconds


@uninterruptible
def try_once(request: LockRequest) -> LeaseKeeper | Sequence[Holder]:
    """Acquire the lock, or return its holders."""
    sent = time.monotonic()
    holders = request.acquire()
    return LeaseKeeper(request, sent) if holders is None else holders


def wait_for_lock(
    request: LockRequest,
    *,
    timeout: float | None,
    initial_delay: float,
    max_delay: float,
    on_wait: Callable[[Sequence[Holder]], None] = lambda holders: None,
    sleep: Callable[[float], None] = time.sleep,
) -> LeaseKeeper:
    """Acquire the lock, or raise `LockTimeout` after `timeout` seconds; None waits forever.

    `on_wait` is called once, with the holders, before the first pause. Raises `LockUnavailable` if the server is
    unavailable for half a minute, `LockUnknown` if it may have granted a request by then.
    """
    waited = False
    holders: Sequence[Holder] = ()
    for left in backoff.attempts(
        timeout, initial=initial_delay, maximum=max_delay, factor=BACKOFF_FACTOR, sleep=sleep
    ):
        answer = acquire_or_holders(request, min(SERVER_OUTAGE_LIMIT, left), sleep)
        if isinstance(answer, LeaseKeeper):
            return answer
        holders = answer
        if left and not waited:
            on_wait(holders)
            waited = True
    lock, held_by = request.name.label, "; ".join(map(str, holders)) or "another holder"
    raise LockTimeout(
        f"Waited {timeout:g} s for the lock {lock!r}, held by {held_by}.", lock=lock, holders=holders
    )


def acquire_or_holders(
    request: LockRequest, outage_limit: float, sleep: Callable[[float], None] = time.sleep
) -> LeaseKeeper | Sequence[Holder]:
    """Acquire the lock, or return its holders; retry for some seconds while its server is unavailable."""
    errors: list[LockUnavailable] = []
    for _ in backoff.attempts(
        outage_limit, initial=FIRST_RETRY_DELAY, maximum=outage_limit, factor=BACKOFF_FACTOR, sleep=sleep
    ):
        try:
            return try_once(request)
        except LockUnavailable as error:
            errors.append(error)
    kind = LockUnknown if any(isinstance(error, LockUnknown) for error in errors) else LockUnavailable
    raise kind(f"{request.name.label}: {errors[-1]}") from errors[-1]
