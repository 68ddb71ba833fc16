"""Limit the requests of each credential, with Django's cache."""

from __future__ import annotations

import time
from hashlib import sha256
from http import HTTPStatus

from django.core.cache import cache

from cloudrun_jobs.http.credentials import Rate
from cloudrun_jobs.http.errors import HttpError
from cloudrun_jobs.signals import rate_limit_failed


def check_rate(name: str, rate: Rate | None, *, counter: str = "") -> None:
    """Count the request. Raises `HttpError` if the credential has used up its requests of the period.

    Each `counter` of a credential has a limit of its own.

    While the cache is unavailable, requests are not limited.
    """
    if rate is None:
        return
    now = time.time()
    period = int(now // rate.seconds)
    # A digest: a name may be longer than the keys of caches.
    key = f"cloudrun_jobs:rate:{sha256(name.encode()).hexdigest()}{counter}:{period}"
    try:
        count = _count(key, rate.seconds * 2)
    except Exception as error:  # noqa: BLE001  (the errors of caches have no common class)
        rate_limit_failed.send_robust(Rate, caller=name, error=error)
        return
    if count > rate.requests:
        left = str(max(1, round((period + 1) * rate.seconds - now)))
        message = f"{name}: more than {rate.requests} requests in {rate.seconds} seconds."
        raise HttpError(HTTPStatus.TOO_MANY_REQUESTS, "rate_limited", message, headers={"Retry-After": left})


def _count(key: str, timeout: int) -> int:
    """Add one, and return the number of requests."""
    if cache.add(key, 1, timeout):
        return 1
    try:
        return cache.incr(key)
    except ValueError:  # Evicted in between.
        cache.set(key, 1, timeout)
        return 1
