"""Fixtures: an emulator per test, and its gRPC clients."""

from __future__ import annotations

import pytest

from cloudrun_jobs.emulator import Emulator
from tests.emulator.cloud import Cloud
from tests.emulator.fixtures import cloudrun_emulator, cloudrun_emulator_options

__all__ = ["cloudrun_emulator", "cloudrun_emulator_options"]


@pytest.fixture
def emulator(cloudrun_emulator: Emulator) -> Emulator:
    return cloudrun_emulator


@pytest.fixture
def cloud(cloudrun_emulator: Emulator) -> Cloud:
    return Cloud(cloudrun_emulator)
