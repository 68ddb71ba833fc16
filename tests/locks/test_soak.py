"""The nemesis, for some seconds in every run; `python -m tests.locks.soak` gives it longer."""

from __future__ import annotations

import random

import pytest

from tests.locks.soak import soak

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("kind", ["redis", "postgres"])
def test_the_history_is_good(kind):
    """Whatever was killed, stopped or moved: never two at once, and tokens that only grow."""
    assert soak(kind, seconds=10, seed=random.randrange(10**6)) is None
