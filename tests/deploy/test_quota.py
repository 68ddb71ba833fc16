"""Writes stay within the quota of a minute."""

from __future__ import annotations

import pytest
from google.api_core import exceptions as api

from cloudrun_jobs.backends.cloudrun import quota
from cloudrun_jobs.backends.cloudrun.errors import ApiMethod, translate_errors
from cloudrun_jobs.backends.cloudrun.quota import Quota
from cloudrun_jobs.exceptions import QuotaExhausted


class Clock:
    """Time that passes only while somebody sleeps."""

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
    """A thousand turns at 500 a minute: 500 at once, the others a minute later."""
    turns, taken = Quota(per_minute=500), []
    for _ in range(1000):
        turns.wait_for_quota()
        taken.append(clock.now)

    assert (taken[0], taken[499], taken[500], taken[999]) == (0.0, 0.0, 60.0, 60.0)


def test_turns_come_back_one_by_one(clock: Clock) -> None:
    """A turn is free again a minute after it was taken, not at the next full minute."""
    turns = Quota(per_minute=2)
    turns.wait_for_quota()
    clock.now = 50.0
    turns.wait_for_quota()
    turns.wait_for_quota()
    assert clock.now == 60.0

    turns.wait_for_quota()
    assert clock.now == 110.0


def test_a_quota_that_stays_exhausted_is_said() -> None:
    """When all tries are used up, the error is about the quota, not about a missing answer."""
    cause = api.TooManyRequests("Quota exceeded.")

    with (
        pytest.raises(QuotaExhausted, match="a quota ran out"),
        translate_errors("it", ApiMethod(permission="p", role="r"), endpoint=None),
    ):
        raise api.RetryError("Timeout of 90 s exceeded.", cause=cause)
