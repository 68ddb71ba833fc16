"""Start executions, and find those whose start was not confirmed."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any

from google.cloud import run_v2

from cloudrun_jobs.backends.base import Request
from cloudrun_jobs.backends.cloudrun import clients
from cloudrun_jobs.backends.cloudrun.errors import ApiMethod, translate_errors
from cloudrun_jobs.backends.cloudrun.operation import CloudRunOperation
from cloudrun_jobs.backends.cloudrun.quota import Quota
from cloudrun_jobs.environ import REDUCE_VARIABLE, RUN_ID_VARIABLE

if TYPE_CHECKING:
    from cloudrun_jobs.backends.cloudrun import CloudRunBackend

RUN = ApiMethod(
    permission="run.jobs.run and run.jobs.runWithOverrides",
    role="roles/run.jobsExecutorWithOverrides",
    starts=True,
)
LIST = ApiMethod(permission="run.executions.list", role="roles/run.viewer", polls=True)


def run_job(backend: CloudRunBackend, request: Request, timeout: float) -> CloudRunOperation:
    """Send the request once. RunJob is not idempotent, so it is not retried."""
    name = f"{backend.parent}/jobs/{request.job}"
    # The arguments replace those of the job; the variables are added to the job's.
    variables = [{"name": variable, "value": value} for variable, value in request.env.items()]
    overrides: dict[str, Any] = {"container_overrides": [{"args": request.container_args, "env": variables}]}
    if request.overrides.tasks is not None:
        overrides["task_count"] = request.overrides.tasks
    if request.overrides.timeout is not None:
        overrides["timeout"] = {"seconds": int(request.overrides.timeout.total_seconds())}
    # Wrap the plain message: building it with proto-plus takes five times as long.
    message = run_v2.RunJobRequest.wrap(run_v2.RunJobRequest.pb()(name=name, overrides=overrides))
    with translate_errors(name, RUN, endpoint=backend.endpoint):
        sent = clients.jobs(backend.server).run_job(message, timeout=timeout)
    return CloudRunOperation(request.run_id, backend, execution=sent.metadata, operation=sent.operation)


def find_execution(backend: CloudRunBackend, request: Request, timeout: float) -> CloudRunOperation | None:
    """Return the newest execution of the job that carries the run's id, if there is one.

    `REDUCE_VARIABLE` distinguishes an execution that only calls `reduce()` from the one that runs the tasks.
    """
    wanted = {RUN_ID_VARIABLE: request.run_id, REDUCE_VARIABLE: request.env.get(REDUCE_VARIABLE, "")}
    name = f"{backend.parent}/jobs/{request.job}"
    with translate_errors(name, LIST, endpoint=backend.endpoint):
        client = clients.executions(backend.server)
        for execution in client.list_executions(parent=name, timeout=timeout):
            # The template of an execution includes its overrides.
            variables = (variable for container in execution.template.containers for variable in container.env)
            found = {each.name: each.value for each in variables if each.name in wanted}
            if {REDUCE_VARIABLE: "", **found} == wanted:
                return CloudRunOperation(request.run_id, backend, execution=execution)
    return None


@cache
def run_quota(per_minute: int) -> Quota:
    """Return the quota that all calls of `delay()` in this process share."""
    return Quota(per_minute)


# A thread that a forked child does not have may hold its lock.
os.register_at_fork(after_in_child=run_quota.cache_clear)
