"""What all tests share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection
from hypothesis import HealthCheck, settings

from cloudrun_jobs.locks import local
from tests.servers.fixtures import *  # noqa: F403

# A loaded machine is slow, not wrong: no deadlines.
settings.register_profile("default", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("few", settings.get_profile("default"), max_examples=10)
settings.register_profile("thorough", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(autouse=True)
def _records(db: None) -> None:
    """Every run is recorded, in a transaction that is rolled back when the test ends."""


@pytest.fixture(scope="session")
def migrated(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an SQLite database with the suite's tables and no runs: migrated once, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "db.sqlite3"
    shutil.copyfile(connection.settings_dict["NAME"], path)
    return path


@pytest.fixture
def process_database(migrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the processes that the test starts a database of their own."""
    path = tmp_path / "process.sqlite3"
    shutil.copyfile(migrated, path)
    monkeypatch.setenv("TESTS_DATABASE", str(path))
    return path


@pytest.fixture(autouse=True)
def _free_locks() -> Iterator[None]:
    """Release the locks that a test left to the other tasks of its execution."""
    yield
    local.clear()
