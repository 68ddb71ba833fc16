"""Small sources in the bank's format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest
from pytest_django.fixtures import Settings

from cloudrun_jobs.backends import Request
from tests.example.backends import RecordingBackend

Pack = Callable[..., Path]

THREE_DAYS = """\
Date,USD,JPY,BGN,
2026-10-30,1.1172,175.68,N/A,
2026-10-29,1.113,175.92,N/A,
1999-01-05,1.179,130.96,1.9558,
"""


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    """Return a function that zips text or bytes like the bank."""

    def pack(content: str | bytes, name: str = "eurofxref-hist.csv") -> Path:
        with ZipFile(tmp_path / "rates.zip", "w") as archive:
            archive.writestr(name, content)
        return tmp_path / "rates.zip"

    return pack


@pytest.fixture
def source(pack: Pack) -> Path:
    """Return a source with three days and seven rates."""
    return pack(THREE_DAYS)


@pytest.fixture
def cloud(settings: Settings, monkeypatch: pytest.MonkeyPatch, transactional_db: None) -> list[Request]:
    """Use the recording backend, and return the requests that it receives."""
    path = "tests.example.backends.RecordingBackend"
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "production", "BACKEND": path}
    requests: list[Request] = []
    monkeypatch.setattr(RecordingBackend, "requests", requests)
    return requests
