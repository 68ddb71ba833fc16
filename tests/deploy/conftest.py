"""Fixtures: an emulator, settings that use it, and the sync commands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import get_commands
from pytest_django import Settings

from cloudrun_jobs.emulator import Emulator
from tests.deploy.commands import ACCOUNT, REGION, Sync, Synced, sync
from tests.emulator.fixtures import cloudrun_emulator, cloudrun_emulator_options

__all__ = ["cloudrun_emulator", "cloudrun_emulator_options"]


@pytest.fixture
def emulator(cloudrun_emulator: Emulator) -> Emulator:
    return cloudrun_emulator


@pytest.fixture
def options(settings: Settings, emulator: Emulator) -> dict[str, Any]:
    """The OPTIONS of the environment "production", which a test may change."""
    options = {"endpoint": emulator.grpc, "scheduler_service_account": ACCOUNT}
    settings.CLOUDRUN_JOBS = {
        "ENVIRONMENT": "production",
        "PROJECT": "acme",
        "REGION": REGION,
        "OPTIONS": options,
    }
    return options


@pytest.fixture
def _only_these_jobs(settings: Settings) -> Iterator[None]:
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if not app.startswith("rates")]
    get_commands.cache_clear()  # type: ignore[attr-defined]  # django-stubs omits its cache
    yield
    get_commands.cache_clear()  # type: ignore[attr-defined]  # django-stubs omits its cache


@pytest.fixture
def sync_schedules(options: dict[str, Any], emulator: Emulator, _only_these_jobs: None) -> Sync:
    """Call `sync_cloudrun_schedules`."""

    def call(*args: str) -> Synced:
        return sync("sync_cloudrun_schedules", emulator, *args)

    return call


@pytest.fixture
def sync_jobs(options: dict[str, Any], emulator: Emulator, _only_these_jobs: None) -> Sync:
    """Call `sync_cloudrun_jobs` for `echo`, or for `commands`."""

    def call(*args: str, commands: tuple[str, ...] = ("--command", "echo")) -> Synced:
        return sync("sync_cloudrun_jobs", emulator, *args, *commands)

    return call
