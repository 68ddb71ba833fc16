"""Fixtures: the command line, and an emulator with settings that use it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy.conftest import _only_these_jobs, emulator, options
from tests.emulator.fixtures import cloudrun_emulator, cloudrun_emulator_options
from tests.management.cli import Cli

__all__ = ["_only_these_jobs", "cloudrun_emulator", "cloudrun_emulator_options", "emulator", "options"]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run `manage.py cloudrun_jobs ...`."""
    return Cli(capsys)


@pytest.fixture(autouse=True)
def _state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the output of local runs in the directory of the test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
