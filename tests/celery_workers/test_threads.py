"""Workers with the threads pool: no signal reaches a job, which is interrupted at its next `progress()`."""

from __future__ import annotations

import signal
from uuid import uuid4

import pytest

from cloudrun_jobs.models import JobRun, Status, TaskRun
from tests.celery_workers.cluster import Cluster, Worker, ended
from tests.celery_workers.project.management.commands.step import Command

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def worker(cluster: Cluster) -> Worker:
    return cluster.start("prefork", pool="threads")


@pytest.mark.usefixtures("worker")
def test_runs_at_once(cluster: Cluster) -> None:
    """Two threads of one process run two jobs at the same time, each with its own record."""
    over = cluster.folder / str(uuid4())
    arguments = ("--seconds=0.1", "--seconds=0.2")  # Of two equal runs, one would be skipped.
    runs = [cluster.run("prefork", f"--until={over}", each) for each in arguments]
    pids = {cluster.begun(run).pid for run in runs}
    over.touch()

    assert {ended(run).status for run in runs} == {Status.SUCCEEDED}
    assert len(pids) == 1


@pytest.mark.usefixtures("worker")
def test_a_cancelled_run_ends_at_its_next_progress(cluster: Cluster) -> None:
    """The heartbeat reads the cancellation from the record."""
    run = Command().delay(until="never", progress=True).run
    cluster.begun(run)
    run.cancel()
    run = ended(run)

    assert (run.status, cluster.events(run)) == (
        Status.CANCELLED,
        ["begin", "interrupted: interrupted", "cleaned"],
    )


@pytest.mark.usefixtures("worker")
def test_the_timeout_interrupts_the_job_at_its_next_progress(cluster: Cluster) -> None:
    """Celery has no time limits for threads."""
    run = ended(Command().using(timeout=1).delay(until="never", progress=True).run)

    assert (run.status, run.reason) == (Status.FAILED, "timeout")
    assert cluster.events(run) == ["begin", "interrupted: timeout", "cleaned"] * 2


@pytest.mark.usefixtures("worker")
def test_a_failure_is_retried(cluster: Cluster) -> None:
    """As in the prefork pool."""
    run = ended(Command().delay(failures=1).run)

    assert (run.status, run.result) == (Status.SUCCEEDED, "attempt 2")


def test_shutdown_interrupts_the_jobs_and_gives_them_back(cluster: Cluster, worker: Worker) -> None:
    """The worker waits for its job's next progress() and clean-up; so does one with the pool solo."""
    leaving = [cluster.launch("leaving", pool=pool, concurrency=1) for pool in ("threads", "solo")]
    runs = [cluster.run("leaving", "--until=never", "--progress", f"--seconds={number}") for number in range(2)]
    for run in runs:
        cluster.begun(run)
    for each in leaving:
        each.kill(signal.SIGTERM)
    for each in leaving:
        each.process.wait(10)
    tasks = TaskRun.objects.filter(run__in=runs).values_list("reason", "interruptions")
    given_back = cluster.client.llen("leaving")
    JobRun.objects.filter(pk__in=[run.pk for run in runs]).update(argv=["step"])
    cluster.add_queue(worker, "leaving")

    assert (list(tasks), given_back) == ([("interrupted", 1)] * 2, 2)
    assert {ended(run).status for run in runs} == {Status.SUCCEEDED}
