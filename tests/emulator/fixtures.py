"""An emulator per test, whose tasks have the databases that their jobs declare, or none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cloudrun_jobs.emulator import Emulator


@pytest.fixture
def cloudrun_emulator_options() -> dict[str, Any]:
    return {"grace": 1.0}


@pytest.fixture
def cloudrun_emulator(cloudrun_emulator_options: dict[str, Any]) -> Iterator[Emulator]:
    with Emulator(**cloudrun_emulator_options) as emulator:
        yield emulator
