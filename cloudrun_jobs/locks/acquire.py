"""Acquire a lock: wait with back-off while it is held, and for a while when its server is unavailable.

A release is also repeated while the server is unavailable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from django.db import Error

from cloudrun_jobs import backoff
from cloudrun_jobs.exceptions import LockError, LockTimeout, LockUnavailable, LockUnknown
from cloudrun_jobs.locks.base import Holder
from cloudrun_jobs.locks.keeper import LeaseKeeper
from cloudrun_jobs.locks.requests import LockRequest
from cloudrun_jobs.process.deferral import uninterruptible

BACKOFF_FACTOR = 1.5
SERVER_OUTAGE_LIMIT = 30.0  # seconds
FIRST_RETRY_DELAY_SECONDS = 0.1


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
        outage_limit, initial=FIRST_RETRY_DELAY_SECONDS, maximum=outage_limit, factor=BACKOFF_FACTOR, sleep=sleep
    ):
        try:
            return try_once(request)
        except LockUnavailable as error:
            errors.append(error)
    kind = LockUnknown if any(isinstance(error, LockUnknown) for error in errors) else LockUnavailable
    raise kind(f"{request.name.label}: {errors[-1]}") from errors[-1]


def release(keeper: LeaseKeeper) -> bool:
    """Release the lock; return False if it was lost before. Raises `LockUnavailable`.

    Retries for as long as the lease may last, but at most for half a minute.
    """
    try:
        return keeper.release()
    except LockUnavailable as error:
        if not error.is_transient:
            raise
        repeat = uninterruptible(partial(keeper.request.release, finished=True))
        limit = min(SERVER_OUTAGE_LIMIT, keeper.left)
        return backoff.retry(
            lambda left: repeat(), (LockUnavailable,), limit, initial=FIRST_RETRY_DELAY_SECONDS, maximum=1.0
        )


def release_all(
    requests: Iterable[LockRequest], *, finished: bool, seconds: float, is_interrupted: Callable[[], bool]
) -> None:
    """Repeat the releases that got no reply, for some seconds or until SIGTERM, of all locks at once."""
    for _ in backoff.attempts(seconds, initial=FIRST_RETRY_DELAY_SECONDS, maximum=2.0):
        for request in filter(lambda request: request.is_held, requests):
            try:
                request.release(finished=finished)
            except LockUnavailable as error:
                request.is_held = error.is_transient
            except (LockError, Error):  # It would fail again, as the first release did.
                request.is_held = False
        if is_interrupted() or not any(request.is_held for request in requests):
            return
