"""Fixtures: an emulator per test, and its gRPC clients."""

from __future__ import annotations

import pytest

from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.testing.emulator import cloudrun_emulator, cloudrun_emulator_options
from tests.emulator.cloud import Cloud

__all__ = ["cloudrun_emulator", "cloudrun_emulator_options"]


@pytest.fixture
def emulator(cloudrun_emulator: Emulator) -> Emulator:
    return cloudrun_emulator


@pytest.fixture
def cloud(cloudrun_emulator: Emulator) -> Cloud:
    return Cloud(cloudrun_emulator)
