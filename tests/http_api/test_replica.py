"""Requests while reads are routed to a replica, and while records are deleted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import DEFAULT_DB_ALIAS

from cloudrun_jobs.http import runs
from cloudrun_jobs.models import JobRun, TaskRun

RUN = "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed"


class ToThePrimary:
    """A router whose replica must not be read: it may lag behind."""

    def db_for_read(self, model: type, **hints: Any) -> str:
        raise AssertionError(f"{model} is read from the replica")

    def db_for_write(self, model: type, **hints: Any) -> str:
        return DEFAULT_DB_ALIAS


@pytest.fixture
def run() -> JobRun:
    """A run whose task reports."""
    run: JobRun = JobRun.objects.create(
        pk=RUN, command="echo", argv=["echo"], environment="test", trigger="delay", status="running"
    )
    TaskRun.objects.create(run=run, index=0, worker=run.pk, progress_done=1, result=[1])
    return run


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "jobs/", 200),
        ("GET", "jobs/stats/", 200),
        ("GET", "health/", 503),
        ("GET", f"jobs/{RUN}/", 200),
        ("GET", f"jobs/{RUN}/?wait=0.05", 200),
        ("POST", f"jobs/{RUN}/cancel/", 202),
        ("POST", f"jobs/{RUN}/rerun/", 202),
        ("POST", "jobs/echo/", 202),
        ("POST", "run/in_request/", 500),  # Its option is missing.
    ],
)
def test_records_are_read_from_the_primary(
    call: Callable[..., Any], settings: Any, method: str, path: str, status: int
) -> None:
    """No endpoint reads the replica."""
    settings.DATABASE_ROUTERS = [ToThePrimary()]
    JobRun.objects.update(created_at="2026-01-01T00:00:00Z", started_at="2026-01-01T00:00:00Z")
    TaskRun.objects.update(heartbeat_at="2026-01-01T00:00:00Z")

    assert call(method, path).status_code == status


def test_records_are_reloaded_from_the_primary(run: JobRun, settings: Any) -> None:
    """So are fields that were not loaded at first."""
    settings.DATABASE_ROUTERS = [ToThePrimary()]
    run._state.db = "replica"

    run.refresh_from_db()
    assert run.refresh().status == "running"
    assert JobRun.objects.only("pk").get(pk=RUN).command == "echo"
    assert TaskRun.objects.defer("result").get(run=RUN).result == [1]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", f"jobs/{RUN}/?wait=5"), ("POST", f"jobs/{RUN}/cancel/")], ids=str
)
def test_record_that_is_deleted_meanwhile_is_not_found(
    call: Callable[..., Any], run: JobRun, monkeypatch: pytest.MonkeyPatch, method: str, path: str
) -> None:
    """`prune` may delete it during the request."""
    find_run = runs.find_run

    def find_and_delete(*args: Any) -> JobRun:
        found = find_run(*args)
        JobRun.objects.all().delete()
        return found

    monkeypatch.setattr(runs, "find_run", find_and_delete)

    response = call(method, path)

    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")
    assert response["Cache-Control"] == "no-store"


@pytest.mark.parametrize(("query", "status"), [("", "running"), ("?wait=0", "running"), ("?wait=5", "succeeded")])
def test_run_is_read_once(
    call: Callable[..., Any], run: JobRun, django_assert_num_queries: Any, query: str, status: str
) -> None:
    """Without a need to wait, there is one query for the run and one for its progress."""
    JobRun.objects.update(status=status)

    with django_assert_num_queries(2):
        assert call("GET", f"jobs/{RUN}/{query}").json()["status"] == status
