"""Fault injection for some seconds in every run; `python -m tests.locks.soak` runs for longer."""

from __future__ import annotations

import random

import pytest

from tests.locks.soak import soak

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("kind", ["redis", "postgres"])
def test_history_survives_faults(kind):
    """Never two jobs at once, and tokens that only grow, whatever is killed, stopped or moved."""
    assert soak(kind, seconds=10, seed=random.randrange(10**6)) is None
