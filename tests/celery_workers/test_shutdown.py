"""Workers that end, are killed or stand still, and the messages that they had."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cloudrun_jobs.models import JobRun, Status
from tests.celery_workers.cluster import Cluster, ended

pytestmark = pytest.mark.faults

SILENCE = timedelta(minutes=3)
# Cloud Run kills a container ten seconds after SIGTERM.
CLOUD_RUN_SECONDS = 10


@pytest.mark.parametrize("cleanup", [1, 5.5, 30])
def test_shutdown_interrupts_the_job_and_gives_it_back(cluster: Cluster, cleanup: float) -> None:
    """Within ten seconds the job has cleaned up, and its message is back; another worker has it at once."""
    worker = cluster.start("other", concurrency=1)
    run = cluster.run("other", "--until=never", f"--cleanup={cleanup}")
    cluster.begun(run)
    seconds = worker.stop()
    interrupted, retry = run.tasks.get(), cluster.client.llen("other")
    JobRun.objects.filter(pk=run.pk).update(argv=["step"])
    cluster.start("other", concurrency=1)

    assert seconds < CLOUD_RUN_SECONDS
    assert (interrupted.reason, interrupted.interruptions, retry) == ("interrupted", 1, 1)
    assert cluster.events(run)[:2] == ["begin", "interrupted: interrupted"]
    assert ended(run).status == Status.SUCCEEDED
