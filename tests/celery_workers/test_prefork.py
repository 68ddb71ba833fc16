"""Workers with Celery's pool prefork."""

from __future__ import annotations

from typing import Any

import pytest

from cloudrun_jobs.models import JobRun, Status
from tests.celery_workers.cluster import Cluster, Worker, ended
from tests.celery_workers.project.management.commands.step import Command

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def worker(cluster: Cluster) -> Worker:
    return cluster.start("prefork")


def start(**options: Any) -> JobRun:
    return Command().delay(**options).run


@pytest.mark.usefixtures("worker")
def test_a_run_succeeds(cluster: Cluster) -> None:
    """The worker records the result, and names its process."""
    run = ended(start())

    assert (run.status, run.result, cluster.events(run)) == (Status.SUCCEEDED, "attempt 1", ["begin", "end"])
