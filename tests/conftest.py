"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from cloudrun_jobs.locks import local

# A loaded machine is slow, not wrong: no deadlines. CI looks at more examples than a developer waits for.
settings.register_profile("default", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(autouse=True)
def _records(db: None) -> None:
    """Every run is recorded, in a transaction that is rolled back when the test ends."""


@pytest.fixture(autouse=True)
def _free_locks() -> Iterator[None]:
    """A test that plays one of several tasks leaves the lock to the others, who never come."""
    yield
    local.forget()
