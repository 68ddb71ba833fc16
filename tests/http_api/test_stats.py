"""The statistics of each job."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine

from cloudrun_jobs.models import JobRun
from cloudrun_jobs.registry import find_jobs

NOW = datetime(2026, 11, 25, 19, tzinfo=UTC)  # An hour after the due time of `nightly`.
NONE = {
    "counts": {},
    **dict.fromkeys(("last_success", "last_failure", "p50", "p95", "next_due", "overdue_since")),
}


def record(command: str, status: str, seconds: float = 1.5, **values: Any) -> None:
    """Record a run that ended an hour ago."""
    started, ended = NOW - timedelta(hours=1, seconds=seconds), NOW - timedelta(hours=1)
    given = {"environment": "test", "trigger": "delay", "started_at": started, "finished_at": ended, **values}
    JobRun.objects.create(command=command, status=status, created_at=started, **given)


def test_each_job_has_its_statistics(call: Callable[..., Any]) -> None:
    """Durations are seconds; a job without runs, and one whose code is gone, are listed as well."""
    record("echo", "succeeded")
    record("echo", "failed", 90)
    record("gone", "lost")

    found = call("GET", "jobs/stats/").json()

    assert found["echo"] == {
        "counts": {"failed": 1, "succeeded": 1},
        "last_success": "2026-11-25T18:00:00Z",
        "last_failure": "2026-11-25T18:00:00Z",
        "p50": 1.5,
        "p95": 90.0,
        "next_due": None,
        "overdue_since": None,
    }
    assert found["gone"]["counts"] == {"lost": 1}
    assert found["walk"] == NONE
    assert list(found) == sorted({*find_jobs().jobs, "gone"})


@pytest.mark.parametrize(
    ("last", "overdue"), [(0, None), (1, "2026-11-25T18:00:00Z"), (3, "2026-11-23T18:00:00Z")], ids=str
)
def test_schedules_of_a_job_are_due(call: Callable[..., Any], last: int, overdue: str | None) -> None:
    """The statistics have the next due time, and the first one that was missed."""
    due = NOW - timedelta(days=last, hours=1)
    record("nightly", "failed", trigger="schedule", schedule="nightly-test", scheduled_for=due)

    with time_machine.travel(NOW, tick=False):
        found = call("GET", "jobs/stats/").json()["nightly"]

    assert (found["next_due"], found["overdue_since"]) == ("2026-11-26T18:00:00Z", overdue)


def test_token_of_some_commands_sees_their_statistics(call: Callable[..., Any]) -> None:
    """Other jobs are not in the response."""
    record("echo", "succeeded")
    record("gone", "succeeded")

    assert list(call("GET", "jobs/stats/", token="echo only").json()) == ["echo"]


@pytest.mark.parametrize("count", [1, 20])
def test_statistics_cost_two_queries(call: Callable[..., Any], django_assert_num_queries: Any, count: int) -> None:
    """The number of queries does not depend on the number of jobs and schedules."""
    for number in range(count):
        record(f"job{number}", "succeeded", schedule=f"job{number}-test", scheduled_for=NOW)

    with django_assert_num_queries(2):
        call("GET", "jobs/stats/")
