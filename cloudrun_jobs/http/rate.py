"""Limit the requests of each credential, with Django's cache."""

from __future__ import annotations

import time
from http import HTTPStatus

from django.core.cache import cache

from cloudrun_jobs.http.credentials import Rate
from cloudrun_jobs.http.errors import HttpError


def check_rate(name: str, rate: Rate | None) -> None:
    """Count the request. Raises `HttpError` if the credential has used up its requests of the period."""
    if rate is None:
        return
    now = time.time()
    period = int(now // rate.seconds)
    key = f"cloudrun_jobs:rate:{name.encode().hex()}:{period}"[:250]
    if _count(key, rate.seconds * 2) > rate.requests:
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
