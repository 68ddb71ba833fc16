"""Taskferry's backend of Cloud Run jobs."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from tests.clients.emulator import (
    PROJECT,
    REGION,
    create_job,
    emulator,
    eventually,
    eventually_async,
    fails_with,
    grpc_clients,
    home,
    step,
)

SCRIPT = "echo $1 with $GDAL_CACHEMAX; case $1 in failing) exit 3;; waiting) exec sleep 60;; esac"
CONFIGURATION = {
    "backends": {"heavy": {"factory": "cloudrun", "project": PROJECT, "location": REGION}},
    "defaults": {"job": "heavy"},
}


async def cancelled_while_running(backend: Any) -> Any:
    """Submit, cancel and read an execution with the asynchronous clients."""
    from taskferry import ExecutionState, JobSpec

    execution = await backend.asubmit(JobSpec(job="build-cog", args=["waiting"]))

    async def has_state(*states: ExecutionState) -> ExecutionState | None:
        state = (await backend.aget(execution.id)).state
        return state if state in states else None

    await eventually_async(partial(has_state, ExecutionState.RUNNING))
    await backend.acancel(execution.id)
    ended = (ExecutionState.CANCELLED, ExecutionState.FAILED, ExecutionState.SUCCEEDED)
    return await eventually_async(partial(has_state, *ended))


def main() -> None:
    from taskferry import ExecutionState, Resources, Taskferry
    from taskferry.errors import ExecutionNotFound, SubmissionError, UnsupportedCapability

    job = create_job("build-cog", {"image": "app", "command": ["/bin/sh", "-c", SCRIPT, "sh"]})
    runtime = Taskferry.from_mapping(CONFIGURATION)

    handle = runtime.jobs.submit("build-cog", args=["fine"], env={"GDAL_CACHEMAX": "512"}, timeout=3600)
    assert handle.external_id.startswith(f"{job}/executions/")
    assert handle.status() in {ExecutionState.QUEUED, ExecutionState.RUNNING, ExecutionState.SUCCEEDED}
    done = handle.wait(timeout=30)
    assert (done.state, done.name) == (ExecutionState.SUCCEEDED, "build-cog")
    assert done.started_at <= done.finished_at
    step("submitted with arguments, variables and a timeout, and succeeded")

    backend = runtime.backend("heavy")
    lines = ["fine with 512", "Container called exit(0)."]
    eventually(lambda: backend.logs(handle.id).splitlines() == lines)
    assert list(backend.stream_logs(handle.id, poll_interval=0.1, timeout=10)) == lines
    step("read and followed the log")

    wide = runtime.jobs.submit("build-cog", args=["fine"], parallelism=3)
    assert wide.wait(timeout=30).state is ExecutionState.SUCCEEDED
    eventually(lambda: backend.logs(wide.id).splitlines().count("fine with") == 3)
    step("ran three tasks")

    failing = runtime.jobs.submit("build-cog", args=["failing"])
    done = failing.wait(timeout=30)
    assert (done.state, done.result.error) == (ExecutionState.FAILED, "1 of 1 task(s) failed")
    step("failed as expected")

    waiting = runtime.jobs.submit("build-cog", args=["waiting"])
    eventually(lambda: waiting.status() is ExecutionState.RUNNING)
    waiting.cancel()
    assert waiting.wait(timeout=30).state is ExecutionState.CANCELLED
    step("cancelled")

    assert asyncio.run(cancelled_while_running(backend)) is ExecutionState.CANCELLED
    step("submitted, read and cancelled with the asynchronous clients")

    elsewhere = Taskferry.from_mapping(CONFIGURATION)
    assert elsewhere.get(handle.external_id, backend="heavy").state is ExecutionState.SUCCEEDED
    with fails_with("has no execution", ExecutionNotFound):
        backend.get(f"{job}/executions/missing")
    step("read from another process by the name of the execution")

    with fails_with("404 Resource 'missing' of kind 'JOB'", SubmissionError):
        runtime.jobs.submit("missing")
    with fails_with("gpu", UnsupportedCapability):
        runtime.jobs.submit("build-cog", resources=Resources(gpu=1))
    step("refused a missing job, and a GPU")


if __name__ == "__main__":
    with home(), emulator() as addresses, grpc_clients(addresses.grpc):
        main()
