"""Run `manage.py check` in the containers of the jobs."""

from __future__ import annotations

from collections.abc import Iterator

from cloudrun_jobs.backends.base import Request
from cloudrun_jobs.backends.cloudrun.executions import run_job
from cloudrun_jobs.backends.cloudrun.operation import CloudRunOperation
from cloudrun_jobs.backoff import attempts
from cloudrun_jobs.deploy.plan import Existing
from cloudrun_jobs.doctor.commands import gcloud
from cloudrun_jobs.doctor.facts import Facts
from cloudrun_jobs.doctor.findings import Finding
from cloudrun_jobs.doctor.table import EXECUTION_FAILED
from cloudrun_jobs.exceptions import CloudRunJobsError
from cloudrun_jobs.operations import ExecutionState
from cloudrun_jobs.spec import JobSpec
from cloudrun_jobs.spec.overrides import NO_OVERRIDES, Overrides

ARGUMENTS = ("check",)
TIME_LIMIT_SECONDS = 600.0
POLL_INTERVAL_SECONDS = 5.0  # At most.


def check_containers(facts: Facts) -> Iterator[Finding | CloudRunJobsError]:
    """Start an execution of each job that exists; yield a finding for each that does not succeed."""
    started: list[tuple[JobSpec, CloudRunOperation]] = []
    for spec in facts.deployed():
        try:
            if existing := facts.existing_jobs().get(spec.name):
                started.append((spec, _start(facts, spec, existing)))
        except CloudRunJobsError as error:
            yield error
    for spec, operation in started:
        try:
            yield from _finding(facts, spec, operation)
        except CloudRunJobsError as error:
            yield error


def _start(facts: Facts, spec: JobSpec, existing: Existing) -> CloudRunOperation:
    # The smallest number that Cloud Run accepts: the task parallelism.
    tasks = existing.fields.get("task_parallelism") or 1
    overrides = Overrides(tasks=tasks) if tasks < existing.fields.get("tasks", 1) else NO_OVERRIDES
    request = Request(job=spec.name, argv=ARGUMENTS, script=spec.script, run_id="", overrides=overrides)
    return run_job(facts.backend, request, facts.backend.rpc_timeout)


def _finding(facts: Facts, spec: JobSpec, operation: CloudRunOperation) -> Iterator[Finding]:
    state = _wait(operation)
    if state.status == "succeeded":
        return
    name = operation.execution_name.rpartition("/")[2]
    label = f'labels."run.googleapis.com/execution_name"="{name}"'
    fix = gcloud("logging", "read", f'resource.type="cloud_run_job" AND {label}', project=facts.project)
    problem = state.message if state.status else f"it has not ended within {TIME_LIMIT_SECONDS:.0f} seconds"
    message = f"`manage.py check` fails in the container of {spec.name}, execution {name}: {problem}"
    yield Finding(EXECUTION_FAILED, spec.command, message, fix)


def _wait(operation: CloudRunOperation) -> ExecutionState:
    state = ExecutionState(status=None)
    for _ in attempts(TIME_LIMIT_SECONDS, initial=0.2, maximum=POLL_INTERVAL_SECONDS):
        state = operation.get_state()
        if state.status is not None:
            break
    return state
