"""A cluster of workers for each module of tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import get_commands
from django.db import connections
from pytest_django import Settings

from tests.celery_workers.cluster import Cluster
from tests.celery_workers.project.celery_app import app
from tests.locks.workers import database_settings
from tests.servers import redis
from tests.servers.process import Server
from tests.servers.routing import To

BACKEND = "cloudrun_jobs.backends.celery.CeleryBackend"
JOBS = {
    "ENVIRONMENT": "production",
    "PROJECT": "acme",
    "REGION": "europe-west4",
    "BACKEND": BACKEND,
    "OPTIONS": {"app": "tests.celery_workers.project.celery_app.app", "queues": ["prefork", "threads", "other"]},
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a module on one process of pytest-xdist, so that its workers start once."""
    for item in items:
        if item.nodeid.startswith("tests/celery_workers/"):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


@pytest.fixture(autouse=True)
def _records() -> None:
    """Commit what tests write."""


@pytest.fixture(scope="module")
def broker() -> Iterator[Server]:
    server = redis.start(redis.redis_program())
    yield server
    server.stop()


@pytest.fixture(scope="module")
def records(postgres: str) -> str:
    """Return the alias of the database that has the records."""
    return postgres


@pytest.fixture(scope="module")
def jobs() -> dict[str, Any]:
    """Return the settings of the workers."""
    return JOBS


@pytest.fixture(scope="module")
def cluster(
    broker: Server, records: str, jobs: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    app.conf.broker_url = redis.url(broker)
    app._after_fork()  # Forget the connections to the broker of another module.
    given = {"database": database_settings(records), "jobs": jobs}
    cluster = Cluster(redis.url(broker), tmp_path_factory.mktemp("celery"), given)
    yield cluster
    cluster.close()


@pytest.fixture(autouse=True)
def _cloud(
    cluster: Cluster,
    records: str,
    settings: Settings,
    django_db_blocker: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[None]:
    """Send the jobs of this process to the workers, and keep the records in their database."""
    monkeypatch.setitem(get_commands(), "step", "tests.celery_workers.project")  # Its app is not installed here.
    settings.CLOUDRUN_JOBS = JOBS
    settings.DATABASE_ROUTERS = [To(records)]
    with django_db_blocker.unblock():
        yield
        connections[records].close()
