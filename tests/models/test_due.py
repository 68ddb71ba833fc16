"""Due times of schedules, and overdue schedules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.db import connections
from django.test.utils import CaptureQueriesContext

from cloudrun_jobs import Schedule
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.runs.due import START_GRACE, due_schedules
from cloudrun_jobs.spec import JobSpec, declare
from tests.models.conftest import Record

DUE = datetime(2026, 11, 25, 18, tzinfo=UTC)  # 3:00 in Tokyo.
DAY = timedelta(days=1)
SCHEDULES = [Schedule("0 3 * * *", name="night"), Schedule("0 12 * * *", time_zone="Asia/Seoul", name="noon")]


def spec(command: str = "echo", **declared: Any) -> JobSpec:
    return declare(command, {"schedule": "0 3 * * *", "time_zone": "Asia/Tokyo", **declared})


def tick(record: Record, due: datetime | None, schedule: str = "echo-test", **values: Any) -> None:
    """Record the run of a tick."""
    given = {"trigger": "schedule", "schedule": schedule, "scheduled_for": due, **values}
    record("echo", Status.FAILED, **given)


@pytest.mark.parametrize(
    ("last", "passed", "overdue"),
    [
        (None, timedelta(hours=1), None),  # Not deployed, or for the first time.
        (DUE, timedelta(hours=1), None),
        (DUE - DAY, timedelta(hours=-1), None),
        (DUE - DAY, START_GRACE - timedelta(seconds=1), None),
        (DUE - DAY, START_GRACE, DUE),
        (DUE - 9 * DAY, timedelta(hours=1), DUE - 8 * DAY),  # Since the first tick that was missed.
    ],
    ids=str,
)
def test_schedule_without_a_run_is_overdue(
    record: Record, last: datetime | None, passed: timedelta, overdue: datetime | None
) -> None:
    """A schedule is overdue once a tick after its last one has no run; a failed run counts as a run."""
    tick(record, DUE - 9 * DAY, "other-test")
    if last:
        tick(record, last - DAY)
        tick(record, last)

    with time_machine.travel(DUE + passed, tick=False):
        (found,) = due_schedules([spec()])

    assert found.overdue_since == overdue
    assert found.next_due == (DUE if passed < timedelta(0) else DUE + DAY)


@pytest.mark.parametrize(
    ("environment", "values"),
    [
        ("production", {}),
        ("test", {"schedule": "echo-test-reserved-1"}),
        ("test", {"due": None}),  # An English-like schedule had the name before.
    ],
    ids=["environment", "reservation", "English"],
)
def test_runs_of_other_schedules_are_ignored(record: Record, environment: str, values: dict[str, Any]) -> None:
    """Only a tick of this schedule in this environment shows that it is deployed."""
    tick(record, **{"due": DUE - 9 * DAY, **values})
    JobRun.objects.update(environment=environment)

    with time_machine.travel(DUE + DAY, tick=False):
        assert [found.overdue_since for found in due_schedules([spec()])] == [None]


def test_each_schedule_of_a_job_has_its_own_ticks(record: Record) -> None:
    """One is on time, and the other one is overdue."""
    tick(record, DUE, "echo-test-night")
    tick(record, DUE - DAY * 2, "echo-test-noon")

    with time_machine.travel(DUE + timedelta(hours=1), tick=False):
        night, noon = due_schedules([spec(schedule=SCHEDULES)])

    assert (night.scheduler_job, night.overdue_since) == ("echo-test-night", None)
    assert (noon.scheduler_job, noon.overdue_since) == ("echo-test-noon", datetime(2026, 11, 24, 3, tzinfo=UTC))


def test_names_of_reservations_are_not_read(record: Record, database: str) -> None:
    """MariaDB ends a recursive query after 1000 rows, and each name would cost a look-up."""
    JobRun.objects.bulk_create(
        JobRun(command="a", environment="test", trigger="reserve", schedule=f"a-{number}", scheduled_for=DUE)
        for number in range(1100)
    )
    tick(record, DUE - 2 * DAY)

    with time_machine.travel(DUE + timedelta(hours=1), tick=False):
        (found,) = due_schedules([spec()])

    assert found.overdue_since == DUE - DAY


def test_many_schedules_are_read(record: Record, database: str) -> None:
    """More than SQLite allows in a compound SELECT, with one query."""
    names = [f"echo{number}-test" for number in range(1201)]
    for name in (names[0], names[400], names[-1]):
        tick(record, DUE, name)
        tick(record, DUE - DAY, name)

    with CaptureQueriesContext(connections[database]) as queries:
        found = JobRun.objects.last_ticks("test", names)

    assert found == dict.fromkeys((names[0], names[400], names[-1]), DUE)
    assert len(queries) == 1


def test_no_schedules_need_no_query(database: str) -> None:
    """A project without schedules has nothing to read."""
    with CaptureQueriesContext(connections[database]) as queries:
        assert JobRun.objects.last_ticks("test", []) == {}

    assert len(queries) == 0


def test_removed_schedule_is_not_overdue(record: Record) -> None:
    """Its ticks remain, and nothing is due."""
    tick(record, DUE - 9 * DAY)

    assert due_schedules([spec(schedule=None)]) == []


def test_english_schedule_has_no_due_times(record: Record) -> None:
    """Whether "every 2 hours" means even hours is not documented."""
    tick(record, DUE - 9 * DAY)

    (found,) = due_schedules([spec(schedule="every 2 hours")])

    assert (found.next_due, found.overdue_since) == (None, None)


def test_due_times_cost_one_query(record: Record, database: str) -> None:
    """There is one query for all schedules."""
    for number in range(5):
        tick(record, DUE, f"echo{number}-test")

    with CaptureQueriesContext(connections[database]) as queries:
        found = due_schedules([spec(f"echo{number}") for number in range(5)])

    assert (len(queries), len(found)) == (1, 5)
    names = [f"echo{number}-test" for number in range(5)]
    assert JobRun.objects.last_ticks("test", names) == dict.fromkeys(names, DUE)
