"""Workers that are shut down, as Cloud Run does it: SIGTERM, and SIGKILL ten seconds later."""

from __future__ import annotations

import threading

import pytest

from cloudrun_jobs.models import JobRun, Status, TaskRun
from tests.celery_workers.cluster import Cluster, ended

pytestmark = pytest.mark.faults

CLOUD_RUN_SECONDS = 10


def test_shutdown_interrupts_the_jobs_and_gives_them_back(cluster: Cluster) -> None:
    """Jobs have six seconds to clean up; one that takes longer is ended. Another worker has both at once."""
    other = cluster.launch("other")
    workers = [cluster.launch("shutdown", concurrency=1) for _ in range(2)]
    runs = [cluster.run("shutdown", "--until=never", f"--cleanup={seconds}") for seconds in (0.5, 30)]
    for run in runs:
        cluster.begun(run)
    seconds: list[float] = []
    threads = [threading.Thread(target=lambda each: seconds.append(each.stop()), args=(each,)) for each in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tasks = [TaskRun.objects.get(run=run) for run in runs]
    given_back = cluster.client.llen("shutdown")
    JobRun.objects.filter(pk__in=[run.pk for run in runs]).update(argv=["step"])
    cluster.add_queue(other, "shutdown")

    assert min(seconds) < CLOUD_RUN_SECONDS
    assert max(seconds) < CLOUD_RUN_SECONDS + 5  # A loaded machine is slow. The message is back before.
    assert [(task.reason, task.interruptions, task.status) for task in tasks] == [
        ("interrupted", 1, "running")
    ] * 2
    assert given_back == 2
    assert [ended(run).status for run in runs] == [Status.SUCCEEDED] * 2
    again = ["begin", "end"]
    assert cluster.events(runs[0]) == ["begin", "interrupted: interrupted", "cleaned", *again]
    assert cluster.events(runs[1]) == ["begin", "interrupted: interrupted", *again]
