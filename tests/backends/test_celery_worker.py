"""What a Celery worker sets up before it connects to its broker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from pytest_django import Settings

from cloudrun_jobs.contrib.celery import worker
from tests.jobs.management.commands import echo

CELERY = "cloudrun_jobs.backends.celery.CeleryBackend"


@pytest.fixture(autouse=True)
def _cloud(settings: Settings) -> None:
    place = {"ENVIRONMENT": "production", "PROJECT": "acme", "REGION": "europe-west4"}
    settings.CLOUDRUN_JOBS = {**place, "BACKENDS": {"celery": {"BACKEND": CELERY}}, "ROUTES": {"echo": "celery"}}


def configured(**given: Any) -> Any:
    """Return the settings of a worker whose project has these."""
    app = Celery("tests of a worker", set_as_current=False)
    app.conf.update(given)
    worker.configure(sender=SimpleNamespace(app=app))
    return app.conf


@pytest.mark.parametrize(("timeout", "expected"), [(600, 3600), (1770, 3600), (3600, 7260)])
def test_the_visibility_timeout_exceeds_twice_the_longest_timeout(
    monkeypatch: pytest.MonkeyPatch, timeout: int, expected: int
) -> None:
    """A message of a run that works is not delivered again. Jobs on other backends do not count."""
    monkeypatch.setattr(echo.Command, "timeout", timeout, raising=False)

    assert configured().broker_transport_options == {"visibility_timeout": expected}


def test_the_projects_settings_win() -> None:
    """A worker completes what the project leaves to Celery."""
    options = {"visibility_timeout": 4, "unacked_restore_interval": 1}
    conf = configured(broker_transport_options=options, worker_soft_shutdown_timeout=3.0)

    assert (conf.broker_transport_options, conf.worker_soft_shutdown_timeout) == (options, 3.0)


def test_jobs_are_interrupted_two_seconds_after_sigterm() -> None:
    """Celery's default interrupts them at once if SIGTERM is a cold shutdown."""
    assert configured().worker_soft_shutdown_timeout == 2.0
