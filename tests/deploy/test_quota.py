"""Calls stay within the quota per minute."""

from __future__ import annotations

import pytest
from google.api_core import exceptions as api

from cloudrun_jobs.backends.cloudrun import quota
from cloudrun_jobs.backends.cloudrun.errors import ApiMethod, translate_errors
from cloudrun_jobs.backends.cloudrun.quota import Quota
from cloudrun_jobs.exceptions import QuotaExhausted


class Clock:
    """A clock that advances only during sleep()."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(quota, "time", clock)
    return clock


def test_no_minute_has_more_than_its_quota(clock: Clock) -> None:
    """Of a thousand calls at 500 per minute, 500 are made at once and 500 a minute later."""
    limit, times = Quota(per_minute=500), []
    for _ in range(1000):
        limit.wait()
        times.append(clock.now)

    assert (times[0], times[499], times[500], times[999]) == (0.0, 0.0, 60.0, 60.0)


def test_quota_is_a_sliding_window(clock: Clock) -> None:
    """A call counts for a minute, not until the next full minute."""
    limit = Quota(per_minute=2)
    limit.wait()
    clock.now = 50.0
    limit.wait()
    limit.wait()
    assert clock.now == 60.0

    limit.wait()
    assert clock.now == 110.0


def test_exhausted_retries_raise_quota_exhausted() -> None:
    """After the last retry the error names the quota, not a missing answer."""
    cause = api.TooManyRequests("Quota exceeded.")

    with (
        pytest.raises(QuotaExhausted, match="a quota is exhausted"),
        translate_errors("it", ApiMethod(permission="p", role="r"), endpoint=None),
    ):
        raise api.RetryError("Timeout of 90 s exceeded.", cause=cause)
