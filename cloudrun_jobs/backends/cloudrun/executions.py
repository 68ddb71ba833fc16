"""The one call that starts an execution, and the one that finds it again."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, cast

from google.cloud import run_v2

from cloudrun_jobs.backends.base import Request
from cloudrun_jobs.backends.cloudrun import clients
from cloudrun_jobs.backends.cloudrun.errors import ApiMethod, translate_errors
from cloudrun_jobs.backends.cloudrun.operation import CloudRunOperation
from cloudrun_jobs.backends.cloudrun.quota import Quota
from cloudrun_jobs.environ import RUN_ID_VARIABLE

if TYPE_CHECKING:
    from cloudrun_jobs.backends.cloudrun import CloudRunBackend

RUN = ApiMethod(
    permission="run.jobs.run and run.jobs.runWithOverrides",
    role="roles/run.jobsExecutorWithOverrides",
    starts=True,
)
LIST = ApiMethod(permission="run.executions.list", role="roles/run.viewer")


def run_job(backend: CloudRunBackend, request: Request, timeout: float) -> CloudRunOperation:
    """Send the request once. RunJob is not idempotent, so nothing here repeats it."""
    message = run_job_request(_name(backend, request), request)
    with translate_errors(message.name, RUN, endpoint=backend.endpoint):
        sent = clients.jobs(backend.endpoint).run_job(message, timeout=timeout)
    return CloudRunOperation(request.run_id, backend, execution=sent.metadata, operation=sent.operation)


def find_execution(backend: CloudRunBackend, request: Request, timeout: float) -> CloudRunOperation | None:
    """Look through the job's executions, the newest first, for the one that was told the run's id."""
    name = _name(backend, request)
    with translate_errors(name, LIST, endpoint=backend.endpoint):
        client = clients.executions(backend.endpoint)
        for execution in client.list_executions(parent=name, timeout=timeout):
            if request.run_id in _run_ids(execution):
                return CloudRunOperation(request.run_id, backend, execution=execution)
    return None


@cache
def turns(per_minute: int) -> Quota:
    """Return this process's turns: ten thousand calls of `delay()` wait for one another, and are not refused."""
    return Quota(per_minute)


# Its lock may be held by a thread that a forked child does not have.
os.register_at_fork(after_in_child=turns.cache_clear)


def run_job_request(name: str, request: Request) -> run_v2.RunJobRequest:
    """Build the message: arguments replace those of the job, variables are added to its own."""
    variables = [{"name": name, "value": value} for name, value in request.env.items()]
    overrides = {"container_overrides": [{"args": request.argv, "env": variables}]}
    # The plain message, wrapped: proto-plus takes five times as long to make the parts.
    message = run_v2.RunJobRequest.pb()(name=name, overrides=overrides)
    return cast("run_v2.RunJobRequest", run_v2.RunJobRequest.wrap(message))


def _name(backend: CloudRunBackend, request: Request) -> str:
    return f"{backend.place}/jobs/{request.job}"


def _run_ids(execution: run_v2.Execution) -> list[str]:
    # An execution keeps the template as it was overridden for it.
    containers = execution.template.containers
    return [env.value for container in containers for env in container.env if env.name == RUN_ID_VARIABLE]
