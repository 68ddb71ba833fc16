"""The emulator's clock."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from cloudrun_jobs.emulator.clock import Clock

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def clock():
    clock = Clock()
    clock.start()
    yield clock
    clock.stop()


def test_frozen_clock_stands_still(clock):
    """A frozen clock keeps the instant that it was set to."""
    clock.freeze(NOON)

    assert clock.now() == clock.now() == NOON


def test_advance_fires_due_timers_in_order(clock):
    """Timers fire in order, each at its own instant, including timers added by other timers."""
    clock.freeze(NOON)
    seen = []
    clock.call_later(20, lambda: seen.append(clock.now()))
    clock.call_later(10, lambda: clock.call_later(5, lambda: seen.append(clock.now())))
    clock.call_later(31, lambda: seen.append("too early"))

    clock.advance(timedelta(seconds=30))

    assert seen == [NOON + timedelta(seconds=15), NOON + timedelta(seconds=20)]
    assert clock.now() == NOON + timedelta(seconds=30)


def test_cancelled_timer_does_not_fire(clock):
    """A cancelled timer does not fire."""
    clock.freeze(NOON)
    seen = []
    clock.call_later(1, lambda: seen.append(1)).cancel()
    clock.advance(2)

    assert seen == []


def test_scaled_clock_runs_faster(clock):
    """On a scaled clock, an hour passes in a fraction of a second."""
    clock.scale(36_000)
    done = threading.Event()
    clock.call_later(3600, done.set)

    assert done.wait(10)


def test_unfrozen_clock_continues(clock):
    """A scaled clock continues from the instant at which it was frozen."""
    clock.freeze(NOON)
    clock.scale(1)

    assert timedelta(0) <= clock.now() - NOON < timedelta(minutes=5)


def test_clock_never_goes_back(clock):
    """`advance` rejects negative durations, and `scale` rejects a factor of 0."""
    with pytest.raises(ValueError, match="expected a duration of 0 or more"):
        clock.advance(-1)
    with pytest.raises(ValueError, match="expected a factor above 0"):
        clock.scale(0)
