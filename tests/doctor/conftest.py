"""Fixtures: a healthy project on an emulator, and `doctor`."""

from __future__ import annotations

import pytest

from cloudrun_jobs.emulator import Emulator
from tests.emulator.fixtures import cloudrun_emulator

__all__ = ["cloudrun_emulator"]


@pytest.fixture
def emulator(cloudrun_emulator: Emulator) -> Emulator:
    return cloudrun_emulator
