"""The one call that starts an execution."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.cloud import run_v2

from ..base import Request
from . import clients
from .errors import Call, translated
from .operation import CloudRunOperation

if TYPE_CHECKING:
    from . import CloudRunBackend

RUN = Call(
    permission="run.jobs.run and run.jobs.runWithOverrides",
    role="roles/run.jobsExecutorWithOverrides",
    starts=True,
)


def run_job(backend: CloudRunBackend, request: Request) -> CloudRunOperation:
    """Send the request once. RunJob is not idempotent, so nothing here repeats it."""
    message = run_job_request(backend.settings.project, backend.settings.region, request)
    with translated(message.name, RUN, endpoint=backend.endpoint):
        operation = clients.jobs(backend.endpoint).run_job(message, timeout=backend.rpc_timeout)
    return CloudRunOperation(operation, request.run_id, backend)


def run_job_request(project: str, region: str, request: Request) -> run_v2.RunJobRequest:
    """Build the message: arguments replace those of the job, variables are added to its own."""
    variables = [run_v2.EnvVar(name=name, value=value) for name, value in request.environment.items()]
    override = run_v2.RunJobRequest.Overrides.ContainerOverride(args=request.argv, env=variables)
    return run_v2.RunJobRequest(
        name=f"projects/{project}/locations/{region}/jobs/{request.spec.name}",
        overrides=run_v2.RunJobRequest.Overrides(container_overrides=[override]),
    )
