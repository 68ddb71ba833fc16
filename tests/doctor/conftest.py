"""Fixtures: a healthy project on an emulator, and `doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import get_commands
from pytest_django import Settings

from cloudrun_jobs.emulator import Emulator
from tests.emulator.fixtures import cloudrun_emulator

__all__ = ["cloudrun_emulator"]


@pytest.fixture
def emulator(cloudrun_emulator: Emulator) -> Emulator:
    return cloudrun_emulator
