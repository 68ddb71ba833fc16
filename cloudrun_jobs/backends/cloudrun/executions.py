"""Start executions, and find those whose start was not confirmed."""

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
    """Send the request once. RunJob is not idempotent, so it is not retried."""
    message = run_job_request(_name(backend, request), request)
    with translate_errors(message.name, RUN, endpoint=backend.endpoint):
        sent = clients.jobs(backend.endpoint).run_job(message, timeout=timeout)
    return CloudRunOperation(request.run_id, backend, execution=sent.metadata, operation=sent.operation)


def find_execution(backend: CloudRunBackend, request: Request, timeout: float) -> CloudRunOperation | None:
    """Return the newest execution of the job that carries the run's id, if there is one."""
    name = _name(backend, request)
    with translate_errors(name, LIST, endpoint=backend.endpoint):
        client = clients.executions(backend.endpoint)
        for execution in client.list_executions(parent=name, timeout=timeout):
            if request.run_id in _run_ids(execution):
                return CloudRunOperation(request.run_id, backend, execution=execution)
    return None


@cache
def run_quota(per_minute: int) -> Quota:
    """Return the quota that all calls of `delay()` in this process share."""
    return Quota(per_minute)


# A thread that a forked child does not have may hold its lock.
os.register_at_fork(after_in_child=run_quota.cache_clear)


def run_job_request(name: str, request: Request) -> run_v2.RunJobRequest:
    """Build the message. The arguments replace those of the job; the variables are added to the job's."""
    variables = [{"name": name, "value": value} for name, value in request.env.items()]
    overrides = {"container_overrides": [{"args": request.argv, "env": variables}]}
    # Wrap the plain message: building it with proto-plus takes five times as long.
    message = run_v2.RunJobRequest.pb()(name=name, overrides=overrides)
    return cast("run_v2.RunJobRequest", run_v2.RunJobRequest.wrap(message))


def _name(backend: CloudRunBackend, request: Request) -> str:
    return f"{backend.parent}/jobs/{request.job}"


def _run_ids(execution: run_v2.Execution) -> list[str]:
    # The template of an execution includes its overrides.
    containers = execution.template.containers
    return [env.value for container in containers for env in container.env if env.name == RUN_ID_VARIABLE]
