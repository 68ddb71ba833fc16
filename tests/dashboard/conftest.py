"""Fixtures: members of staff on the dashboard, and an emulator with settings that use it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from pytest_django import Settings

from cloudrun_jobs import CloudRunJobs
from cloudrun_jobs.registry import FoundJobs
from tests.deploy.conftest import emulator, options
from tests.emulator.fixtures import cloudrun_emulator, cloudrun_emulator_options

__all__ = ["cloudrun_emulator", "cloudrun_emulator_options", "emulator", "options"]

SignIn = Callable[..., Client]
Declare = Callable[..., None]


@pytest.fixture
def cloud(settings: Settings, options: dict[str, Any]) -> dict[str, Any]:
    """The OPTIONS of the environment "production" on the emulator, which a test may change."""
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "HTTP": {"SESSION": True}}
    return options


@pytest.fixture
def sign_in(settings: Settings) -> SignIn:
    """Return a client of a member of staff with these permissions on the dashboard."""

    def sign_in(*permissions: str, name: str = "mina") -> Client:
        settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "HTTP": {"SESSION": True}}
        user = User.objects.create_user(name, is_staff=True)
        user.user_permissions.add(*Permission.objects.filter(codename__in=permissions))
        client = Client()
        client.force_login(user)
        return client

    return sign_in


@pytest.fixture
def reader(sign_in: SignIn) -> Client:
    return sign_in("view_jobrun", name="reader")


@pytest.fixture
def operator(sign_in: SignIn) -> Client:
    return sign_in("view_jobrun", "run_job", name="operator")


@pytest.fixture
def declare(monkeypatch: pytest.MonkeyPatch) -> Declare:
    """Replace the project's jobs by these, given their attributes by name; an exception is a failed import."""

    def declare(**given: dict[str, Any] | BaseException) -> None:
        jobs = {name: _job(name, each) for name, each in given.items() if isinstance(each, dict)}
        unreadable = {name: each for name, each in given.items() if isinstance(each, BaseException)}
        for module in ("registry.jobs", "deploy.listing", "management.selection"):
            monkeypatch.setattr(f"cloudrun_jobs.{module}.find_jobs", lambda: FoundJobs(jobs, unreadable))
        monkeypatch.setattr("cloudrun_jobs.dashboard.jobs.pages.find_job", jobs.get)

    return declare


def _job(name: str, attributes: dict[str, Any]) -> CloudRunJobs:
    module = f"shop.management.commands.{name}"
    values = {"run": lambda self, *args, **options: None, "__module__": module, "image": "app:1", **attributes}
    command: type[CloudRunJobs] = type("Command", (CloudRunJobs,), values)
    return command()
