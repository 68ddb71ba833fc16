"""A stand-in for Cloud Run, and settings that use it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_django import Settings

from tests.backends.server import CloudRun, serve
from tests.emulator.fixtures import cloudrun_emulator, cloudrun_emulator_options

__all__ = ["cloudrun_emulator", "cloudrun_emulator_options"]


@pytest.fixture
def cloud_run(settings: Settings, transactional_db: None) -> Iterator[CloudRun]:
    """Serve on loopback, as the endpoint of the environment "production"."""
    with serve() as server:
        settings.CLOUDRUN_JOBS = {
            "ENVIRONMENT": "production",
            "PROJECT": "acme",
            "REGION": "asia-northeast1",
            "OPTIONS": {"endpoint": server.endpoint, "send_deadline": 1, "runs_per_minute": 10_000},
            "LOCKS": {"BACKEND": "cloudrun_jobs.locks.local.LocalLocks"},
        }
        yield server
