"""The databases that store run records, and a fixture that fills them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from pytest_django import Settings

from cloudrun_jobs.models import JobRun, Status, TaskRun
from tests.servers.routing import records_in

DATABASES = ("postgres", "mariadb", "sqlite")
Record = Callable[..., list[JobRun]]


@pytest.fixture(autouse=True)
def _records() -> None:
    """Commit what tests write."""


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, settings: Settings, django_db_blocker: Any) -> Iterator[str]:
    """Store the records in each kind of database in turn."""
    alias = request.getfixturevalue(request.param)
    with records_in(alias, settings, django_db_blocker):
        yield alias


@pytest.fixture
def record(database: str) -> Record:
    """Return a function that inserts runs one minute apart, the newest one so many days old."""

    def insert(command: str, status: Status, *, days: float = 0, count: int = 1, **values: Any) -> list[JobRun]:
        last = datetime.now(UTC) - timedelta(days=days)
        times = [last - timedelta(minutes=minutes) for minutes in range(count)]
        finished = status not in {Status.PENDING, Status.SENT, Status.RUNNING}
        runs = JobRun.objects.bulk_create(
            JobRun(
                command=command,
                environment="test",
                status=status,
                **{
                    "trigger": "delay",
                    "created_at": time,
                    "started_at": time,
                    "finished_at": time if finished else None,
                    **values,
                },
            )
            for time in times
        )
        TaskRun.objects.bulk_create(
            TaskRun(run=run, index=0, worker=uuid4(), status=status, started_at=run.created_at) for run in runs
        )
        return runs

    return insert
