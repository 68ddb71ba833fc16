"""Fixtures: a healthy project on an emulator, which a test damages."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
from django.core.management import get_commands
from pytest_django import Settings

from cloudrun_jobs.emulator import Emulator
from tests.doctor.project import POLICY, Project


@pytest.fixture(scope="package")
def shared_emulator() -> Iterator[Emulator]:
    """Return an emulator that checks callers. Each test has a project of its own on it."""
    with Emulator(iam=POLICY, grace=1.0, registry=()) as emulator:
        yield emulator


@pytest.fixture
def project(shared_emulator: Emulator, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Return a healthy project, in which the jobs `echo` and `nightly` are deployed."""
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if not app.startswith("rates")]
    get_commands.cache_clear()  # type: ignore[attr-defined]  # django-stubs omits its cache
    project = Project(shared_emulator, f"acme-{uuid4().hex[:8]}", settings, monkeypatch)
    project.deploy()
    yield project
    get_commands.cache_clear()  # type: ignore[attr-defined]  # django-stubs omits its cache
