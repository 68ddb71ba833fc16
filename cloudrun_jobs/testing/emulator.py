"""The pytest fixture `cloudrun_emulator`: a Cloud Run and a Cloud Scheduler for one test.

Add this module to `pytest_plugins`, or import the fixtures in a `conftest.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cloudrun_jobs.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def cloudrun_emulator_options() -> dict[str, Any]:
    """The options of the emulator; override this fixture to change them."""
    return {"grace": 1.0}


@pytest.fixture
def cloudrun_emulator(cloudrun_emulator_options: dict[str, Any]) -> Iterator[Emulator]:
    """An emulator on free ports, stopped with all its processes when the test ends."""
    with Emulator(**cloudrun_emulator_options) as emulator:
        yield emulator
