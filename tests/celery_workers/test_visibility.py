"""Workers that are killed or stopped, and messages that are delivered again meanwhile."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from uuid import uuid4

import pytest

from cloudrun_jobs.models import JobRun, Status, TaskRun
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.runs.reconcile import reconcile_all
from tests.celery_workers.cluster import Cluster, Worker, ended, is_alive
from tests.waiting import wait_for

pytestmark = pytest.mark.faults

SILENCE = timedelta(minutes=3)
VISIBILITY_TIMEOUT = 2  # seconds, of all messages of the broker: each worker looks for those of the others


@pytest.fixture(scope="module")
def other(cluster: Cluster) -> Worker:
    """A second worker, with a queue of its own, that tests give the messages of the first."""
    return cluster.start("other", VISIBILITY_TIMEOUT=str(VISIBILITY_TIMEOUT))


def silence(run: JobRun) -> None:
    """Make the run silent for three minutes."""
    past = Now() - SILENCE
    TaskRun.objects.filter(run=run).update(heartbeat_at=past)
    JobRun.objects.filter(pk=run.pk).update(started_at=past, sent_at=past)


def test_a_killed_worker_is_replaced(cluster: Cluster, other: Worker) -> None:
    """`reconcile` sends the silent run again. Its message is delivered again later, and is ignored."""
    worker = cluster.start("killed")
    run = cluster.run("killed", "--seconds=60")
    child = cluster.begun(run).pid
    worker.kill()
    worker.process.wait(30)
    wait_for(lambda: not is_alive(child))
    JobRun.objects.filter(pk=run.pk).update(argv=["step"], queue="other")
    silence(run)

    assert reconcile_all()["redelivered"] == 1
    assert ended(run).status == Status.SUCCEEDED
    cluster.add_queue(other, "killed")
    wait_for(lambda: cluster.is_idle("killed"))  # The old message is ignored.
    assert cluster.events(run) == ["begin", "begin", "end"]


def test_a_run_that_outlasts_the_visibility_timeout_has_one_effect(cluster: Cluster, other: Worker) -> None:
    """Celery delivers the message again each time that the timeout is over, and would run the task in parallel."""
    run = cluster.run("other", f"--seconds={VISIBILITY_TIMEOUT * 2.75}")

    assert ended(run).status == Status.SUCCEEDED
    assert other.text().count(f"its run {run.pk} is running") >= 1
    assert cluster.events(run) == ["begin", "end"]


def test_a_stopped_worker_goes_on(cluster: Cluster, other: Worker) -> None:
    """Another worker gets its message after the visibility timeout, and ignores it."""
    variables = {"VISIBILITY_TIMEOUT": str(VISIBILITY_TIMEOUT)}
    worker = cluster.start("stopped", concurrency=1, **variables)
    over = cluster.folder / str(uuid4())
    run = cluster.run("stopped", f"--until={over}")
    processes = [cluster.begun(run).pid, worker.process.pid]
    cluster.add_queue(other, "stopped")
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    wait_for(lambda: f"its run {run.pk} is running" in other.text())
    for process in processes:
        os.kill(process, signal.SIGCONT)
    over.touch()

    assert ended(run).status == Status.SUCCEEDED
    assert cluster.events(run) == ["begin", "end"]
