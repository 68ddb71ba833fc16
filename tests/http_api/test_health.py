"""The state of schedules, runs, locks and database."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from cloudrun_jobs.models import JobRun, TaskRun
from tests.http_api.conftest import configured

LONG_AGO = datetime.now(UTC) - timedelta(days=2)
TOMORROW = datetime.now(UTC) + timedelta(days=1)
OK = {"status": "ok", "findings": []}


def record(command: str = "echo", **values: Any) -> JobRun:
    given = {"command": command, "environment": "test", "trigger": "delay", **values}
    run: JobRun = JobRun.objects.create(**given)
    return run


def overdue() -> None:
    record("nightly", schedule="nightly-test", scheduled_for=LONG_AGO, status="succeeded", trigger="schedule")


def silent() -> None:
    record(status="running", started_at=LONG_AGO)


def reserved() -> None:
    record(trigger="reserve", schedule="echo-test-reserved-1", scheduled_for=LONG_AGO)


def waiting() -> None:
    record(sending_until=LONG_AGO)


def not_migrated() -> None:
    connection.cursor().execute("DELETE FROM django_migrations WHERE name = '0006_permissions'")


def without_tables() -> None:
    not_migrated()
    connection.cursor().execute("DROP TABLE cloudrun_jobs_taskrun")
    connection.cursor().execute("DROP TABLE cloudrun_jobs_jobrun")


@pytest.mark.parametrize(
    ("arrange", "code", "command"),
    [
        (overdue, "schedule_overdue", "nightly"),
        (silent, "reconciler_late", "echo"),
        (reserved, "reconciler_late", "echo"),
        (waiting, "runs_waiting", "echo"),
        (not_migrated, "migrations_missing", None),
        (without_tables, "migrations_missing", None),
    ],
)
def test_finding(call: Callable[..., Any], arrange: Callable[[], None], code: str, command: str | None) -> None:
    """Each fault is one finding, with the job that it concerns."""
    assert (call("GET", "health/").status_code, call("GET", "health/").json()) == (200, OK)
    arrange()

    response = call("GET", "health/")

    (found,) = response.json()["findings"]
    assert (response.status_code, response.json()["status"]) == (503, "unhealthy")
    assert (found["code"], found.get("command")) == (code, command)
    assert found["message"].endswith(".")


@pytest.mark.parametrize(("count", "words"), [(1, "echo: 1 run "), (2, "echo: 2 runs ")])
@pytest.mark.parametrize("arrange", [silent, waiting])
def test_runs_are_counted(call: Callable[..., Any], arrange: Callable[[], None], count: int, words: str) -> None:
    """The message has the number of runs, in the singular or the plural."""
    for _ in range(count):
        arrange()

    (found,) = call("GET", "health/").json()["findings"]

    assert found["message"].startswith(words)


def test_runs_under_way_are_healthy(call: Callable[..., Any]) -> None:
    """Runs that report, have just been sent, or are due later are no findings."""
    run = record(status="running", started_at=LONG_AGO)
    TaskRun.objects.create(run=run, index=0, worker=run.pk, started_at=LONG_AGO)
    record(status="sent", sent_at=datetime.now(UTC))
    record(status="pending", sending_until=TOMORROW)
    record(trigger="reserve", schedule="echo-test-reserved-1", scheduled_for=TOMORROW)
    record(status="running", started_at=LONG_AGO, environment="production")

    assert call("GET", "health/").json() == OK


def test_findings_are_those_of_the_callers_commands(call: Callable[..., Any]) -> None:
    """Another job's late schedule is not shown, and does not count."""
    overdue()

    assert call("GET", "health/", token="echo only").json() == OK
    not_migrated()
    (found,) = call("GET", "health/", token="echo only").json()["findings"]
    assert found["code"] == "migrations_missing"


def test_health_is_closed_by_default(call: Callable[..., Any], http: Client, settings: Any) -> None:
    """It needs the scope "read", like the other endpoints."""
    assert call("GET", "health/", token="").status_code == 401
    settings.CLOUDRUN_JOBS = configured(HEALTH="closed")
    assert http.head("/cloudrun_jobs/health/").status_code == 401
    assert call("GET", "health/?x=1").status_code == 400


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "headers",
    [{}, {"x-token": "wrong"}, {"authorization": "Bearer a.b.c"}, {"authorization": "Bearer a, Bearer b"}],
    ids=str,
)
def test_public_health_is_a_status_code(http: Client, settings: Any, method: str, headers: dict[str, str]) -> None:
    """Without an accepted credential, the response has a status code only."""
    settings.CLOUDRUN_JOBS = configured(HEALTH="public", RATE="1/h")

    answers = [http.generic(method, f"/cloudrun_jobs/health/?{n}", headers=headers) for n in range(3)]
    overdue()
    answers += [http.generic(method, "/cloudrun_jobs/health/", headers=headers)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 503]
    assert {answer.content for answer in answers} == {b""}
    assert {answer["Cache-Control"] for answer in answers} == {"no-store"}


def test_public_health_opens_nothing_else(call: Callable[..., Any], settings: Any) -> None:
    """If no credential is configured, health responds and every other URL is 404."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test", "HTTP": {"HEALTH": "public"}}

    assert call("GET", "health/", token="").status_code == 200
    assert call("POST", "health/", token="").status_code == 404
    assert call("GET", "jobs/", token="").status_code == 404


def test_public_health_shows_findings_to_a_caller(call: Callable[..., Any], settings: Any) -> None:
    """With a credential, the response is the same as with closed health."""
    settings.CLOUDRUN_JOBS = configured(HEALTH="public")
    overdue()

    assert call("GET", "health/").json()["findings"][0]["code"] == "schedule_overdue"
    assert (call("HEAD", "health/").status_code, call("HEAD", "health/").content) == (503, b"")


def test_missing_lock_tables_are_missing_migrations(call: Callable[..., Any], settings: Any) -> None:
    """The locks may be in another database than the records."""
    locks = {"BACKEND": "cloudrun_jobs.locks.database.DatabaseLocks"}
    settings.CLOUDRUN_JOBS = {**configured(), "LOCKS": locks}
    assert call("GET", "health/").json() == OK
    connection.cursor().execute("ALTER TABLE cloudrun_jobs_lockslot RENAME TO elsewhere")

    (found,) = call("GET", "health/").json()["findings"]

    assert (found["code"], "migrate cloudrun_jobs" in found["hint"]) == ("migrations_missing", True)
