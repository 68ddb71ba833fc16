"""The clock that everything timed waits on."""

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


def test_frozen(clock):
    """A frozen clock stands where it was put."""
    clock.freeze(NOON)

    assert clock.now() == clock.now() == NOON


def test_advance_does_what_falls_due_in_order(clock):
    """Everything due on the way is done at its own instant, in order, also what that adds."""
    clock.freeze(NOON)
    seen = []
    clock.call_later(20, lambda: seen.append(clock.now()))
    clock.call_later(10, lambda: clock.call_later(5, lambda: seen.append(clock.now())))
    clock.call_later(31, lambda: seen.append("too early"))

    clock.advance(timedelta(seconds=30))

    assert seen == [NOON + timedelta(seconds=15), NOON + timedelta(seconds=20)]
    assert clock.now() == NOON + timedelta(seconds=30)


def test_cancelled_timer(clock):
    """A timer that was cancelled does nothing."""
    clock.freeze(NOON)
    seen = []
    clock.call_later(1, lambda: seen.append(1)).cancel()
    clock.advance(2)

    assert seen == []


def test_scaled(clock):
    """On a scaled clock an hour passes in a moment."""
    clock.scale(36_000)
    done = threading.Event()
    clock.call_later(3600, done.set)

    assert done.wait(10)


def test_unfrozen(clock):
    """A clock that is given a speed again goes on from where it stood."""
    clock.freeze(NOON)
    clock.scale(1)

    assert timedelta(0) <= clock.now() - NOON < timedelta(minutes=5)


def test_no_way_back(clock):
    """The clock cannot be set back by advancing, nor be slowed to a stop by scaling."""
    with pytest.raises(ValueError, match="expected a duration of 0 or more"):
        clock.advance(-1)
    with pytest.raises(ValueError, match="expected a factor above 0"):
        clock.scale(0)
