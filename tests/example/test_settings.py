"""The variables by which the example's settings choose a broker and the locks, as those of the guide do."""

from __future__ import annotations

from pathlib import Path
from runpy import run_path
from typing import Any

import pytest

SETTINGS = Path(__file__).resolve().parents[2] / "example_project" / "example" / "settings.py"
NAMES = ("REDIS_URL", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "DISABLE_CELERY", "DISABLE_REDIS")
REDIS, OTHER = "redis://10.94.35.116:6379/0", "redis://10.94.35.117:6379/0"


def read(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> dict[str, Any]:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return run_path(str(SETTINGS))


@pytest.mark.parametrize(
    ("variables", "broker", "results", "locks"),
    [
        ({}, "", "", None),
        ({"REDIS_URL": ""}, "", "", None),
        ({"REDIS_URL": REDIS}, REDIS, REDIS, REDIS),
        ({"REDIS_URL": REDIS, "DISABLE_REDIS": "false"}, REDIS, REDIS, REDIS),
        ({"REDIS_URL": REDIS, "DISABLE_REDIS": "true"}, REDIS, REDIS, None),
        ({"CELERY_BROKER_URL": OTHER}, OTHER, OTHER, None),
        ({"REDIS_URL": REDIS, "CELERY_BROKER_URL": OTHER, "CELERY_RESULT_BACKEND": REDIS}, OTHER, REDIS, REDIS),
    ],
    ids=str,
)
def test_urls(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], broker: str, results: str, locks: str | None
) -> None:
    """REDIS_URL stands for the other URLs, and is that of the locks."""
    found = read(monkeypatch, variables)
    jobs = found["CLOUDRUN_JOBS"]

    assert (found["CELERY_BROKER_URL"], found["CELERY_RESULT_BACKEND"]) == (broker, results)
    assert ("BACKENDS" in jobs, "ROUTES" in jobs) == (bool(broker), bool(broker))
    assert jobs.get("LOCKS", {"OPTIONS": {"url": None}})["OPTIONS"]["url"] == locks


def test_database_of_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the host of Cloud SQL, the database is PostgreSQL, which containers share."""
    host = "/cloudsql/acme:asia-northeast1:main"
    found = read(monkeypatch, {"EXAMPLE_POSTGRES_HOST": host, "EXAMPLE_POSTGRES_PASSWORD": "secret"})
    [database] = found["DATABASES"].values()

    assert database["ENGINE"] == "django.db.backends.postgresql"
    assert (database["HOST"], database["PASSWORD"]) == (host, "secret")


def test_health_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deployment checks the health of a revision without a credential."""
    assert read(monkeypatch, {})["CLOUDRUN_JOBS"]["HTTP"]["HEALTH"] == "public"
