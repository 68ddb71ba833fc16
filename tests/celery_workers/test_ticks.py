"""Ticks that several beats send at once: a worker records one run of each, in PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cloudrun_jobs.models import JobRun, Status
from tests.celery_workers.cluster import Cluster
from tests.celery_workers.conftest import JOBS
from tests.celery_workers.project.celery_app import app
from tests.waiting import wait_for

pytestmark = pytest.mark.faults

BEATS, TICKS = 3, 8
JOB = "step-production"


@pytest.fixture(scope="module")
def jobs() -> dict[str, Any]:
    """Give the job a schedule."""
    return {**JOBS, "DEFAULTS": {"schedule": "* * * * *", "overlap": "allow"}}


def test_one_run_of_each_tick(cluster: Cluster) -> None:
    """The processes of a pool receive the messages of a tick at the same time."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    due = [now - timedelta(minutes=number) for number in range(TICKS)]
    for moment in due:
        for _ in range(BEATS):
            app.send_task("cloudrun_jobs.tick", ("step", JOB, moment.isoformat()), queue="prefork")
    worker = cluster.start("prefork", concurrency=3)
    runs = JobRun.objects.filter(schedule=JOB)
    wait_for(lambda: runs.filter(status=Status.SUCCEEDED).count() >= TICKS and cluster.is_idle("prefork"))

    assert sorted(runs.values_list("scheduled_for", flat=True)) == sorted(due)
    assert [cluster.events(run) for run in runs] == [["begin", "end"]] * TICKS
    assert worker.text().count("Task cloudrun_jobs.tick") == 2 * BEATS * TICKS  # Received, and succeeded.
