"""prefect-gcp's workers: of Cloud Run's v2 API, and of its v1 API at the host of the region."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any
from unittest import mock
from uuid import uuid4

from tests.clients.emulator import PROJECT, REGION, emulator, google_hosts, home, step

if TYPE_CHECKING:
    from collections.abc import Iterator


def without_tls(api_endpoint: str) -> Any:
    from google.api_core.client_options import ClientOptions

    return ClientOptions(api_endpoint=api_endpoint.replace("https://", "http://"))


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """Let the workers keep their hosts, but without TLS and without credentials."""
    from google.auth.credentials import AnonymousCredentials

    with (
        google_hosts(address),
        mock.patch("google.auth.default", return_value=(AnonymousCredentials(), PROJECT)),
        mock.patch("prefect_gcp.workers.cloud_run.ClientOptions", without_tls),
        mock.patch("prefect_gcp.workers.cloud_run_v2.ClientOptions", without_tls),
    ):
        yield


async def configuration(worker: Any, flow_run: Any, script: str, **variables: Any) -> Any:
    """Return a run's configuration, as the worker makes it from its template and the deployment's variables."""
    from prefect_gcp import GcpCredentials

    template = type(worker).get_default_base_job_template()
    values = {"region": REGION, "image": "app", "command": f"/bin/sh -c '{script}'", **variables}
    prepared = await worker.job_configuration.from_template_and_values(template, values, client=mock.Mock())
    prepared.credentials = GcpCredentials(project=PROJECT)
    prepared.prepare_for_flow_run(flow_run)
    return prepared


async def run(worker: Any, script: str, **variables: Any) -> int:
    """Run a script as a flow run's command; return the status code that the worker reports."""
    from prefect.client.schemas import FlowRun

    flow_run = FlowRun(flow_id=uuid4(), name="flow-run")
    prepared = await configuration(worker, flow_run, script, **variables)
    return int((await worker.run(flow_run, prepared)).status_code)


async def killed(worker: Any) -> int:
    """Run a long script and kill its infrastructure; return the status code that the worker reports."""
    from prefect.client.schemas import FlowRun

    flow_run = FlowRun(flow_id=uuid4(), name="flow-run")
    prepared = await configuration(worker, flow_run, "sleep 60")
    started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    status = mock.Mock(started=started.set_result)
    running = asyncio.create_task(worker.run(flow_run, prepared, status))
    await worker.kill_infrastructure(await started, prepared)
    return int((await running).status_code)


async def main() -> None:
    from prefect_gcp.workers.cloud_run import CloudRunWorker
    from prefect_gcp.workers.cloud_run_v2 import CloudRunWorkerV2

    for worker in (CloudRunWorker("pool"), CloudRunWorkerV2("pool")):
        # At once, because a worker waits for 5 seconds between two looks at an execution.
        succeeded, failed, stopped = await asyncio.gather(
            run(worker, "exit 0"), run(worker, "exit 3"), killed(worker)
        )
        assert (succeeded, failed, stopped) == (0, 1, -1), (succeeded, failed, stopped)
        step(f"{worker.type}: one flow run succeeded, one failed, one was killed, and their jobs were deleted")


if __name__ == "__main__":
    with home(), emulator() as addresses:
        os.environ |= {"PREFECT_HOME": os.environ["HOME"], "PREFECT_LOGGING_TO_API_ENABLED": "false"}
        with connected(addresses.http):
            asyncio.run(main())
