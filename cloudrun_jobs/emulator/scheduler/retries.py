"""Decide whether and when to retry a failed delivery."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from google.cloud import scheduler_v1


def backoff(config: scheduler_v1.RetryConfig, retry: int) -> timedelta:
    """Return the wait before a retry, counted from 0: it doubles `max_doublings` times, then grows linearly.

    From a minimum of 10 s with 3 doublings: 10, 20, 40, 80, 160, 240 … up to the maximum.
    """
    minimum: timedelta = config.min_backoff_duration
    maximum: timedelta = config.max_backoff_duration
    doubled = min(retry, config.max_doublings)
    wait: timedelta = minimum * 2**doubled * (retry - doubled + 1)
    return min(wait, maximum)


def should_retry(config: scheduler_v1.RetryConfig, retries: int, first_attempt: datetime, now: datetime) -> bool:
    """Return True if the delivery should be retried: until both the count and the duration limit are reached."""
    within_duration = bool(config.max_retry_duration) and now - first_attempt < config.max_retry_duration
    return retries < config.retry_count or within_duration
