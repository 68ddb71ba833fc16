"""Run `manage.py check` in the containers of the jobs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import timedelta

from cloudrun_jobs.backends.base import Request
from cloudrun_jobs.backends.cloudrun.entries import has_entry
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
from cloudrun_jobs.spec.overrides import Overrides

ARGUMENTS = ("check",)
TASK_TIMEOUT = timedelta(minutes=5)  # Of each attempt.
TIME_LIMIT_SECONDS = 600.0
POLL_INTERVAL_SECONDS = 5.0  # At most.
OUTPUT = "System check identified"  # Of `manage.py check` that succeeds.
LOG_DELAY_SECONDS = 30.0  # Until Cloud Logging lists what a container has written.
# Findings about a job whose containers cannot start.
CAUSES = frozenset(
    {"image_missing", "container_ambiguous", "job_not_ready", "secret_missing", "secret_version", "secret_access"}
)


def check_containers(facts: Facts, found: Collection[Finding] = ()) -> Iterator[Finding | CloudRunJobsError]:
    """Start an execution of each job that exists; yield a finding for each that does not succeed.

    Jobs whose findings in `found` tell why they cannot start are left out.
    """
    started: list[tuple[JobSpec, CloudRunOperation]] = []
    broken = {finding.job for finding in found if finding.id in CAUSES}
    for spec in (spec for spec in facts.deployed() if spec.command not in broken):
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
    fewer = tasks if tasks < existing.fields.get("tasks", 1) else None
    overrides = Overrides(tasks=fewer, timeout=TASK_TIMEOUT)
    request = Request(job=spec.name, argv=ARGUMENTS, script=spec.script, run_id="", overrides=overrides)
    return run_job(facts.backend, request, facts.backend.rpc_timeout)


def _finding(facts: Facts, spec: JobSpec, operation: CloudRunOperation) -> Iterator[Finding]:
    state = _wait(operation)
    name = operation.execution_name.rpartition("/")[2]
    log = f'resource.type="cloud_run_job" AND labels."run.googleapis.com/execution_name"="{name}"'
    if state.status != "succeeded":
        problem = state.message if state.status else f"it has not ended within {TIME_LIMIT_SECONDS:.0f} seconds"
    elif not _has_checked(facts, log):
        problem = f"it succeeds without the output {OUTPUT!r}, so its entrypoint does not start the arguments"
    else:
        return
    fix = gcloud("logging", "read", log, project=facts.project)
    message = f"`manage.py check` fails in the container of {spec.name}, execution {name}: {problem}"
    yield Finding(EXECUTION_FAILED, spec.command, message, fix)


def _wait(operation: CloudRunOperation) -> ExecutionState:
    state = ExecutionState(status=None)
    for _ in attempts(TIME_LIMIT_SECONDS, initial=0.2, maximum=POLL_INTERVAL_SECONDS):
        state = operation.get_state()
        if state.status is not None:
            break
    return state


def _has_checked(facts: Facts, log: str) -> bool:
    """Return True if the log has the output of the check: other programs also ignore arguments, and succeed."""
    waits = attempts(LOG_DELAY_SECONDS, initial=0.2, maximum=POLL_INTERVAL_SECONDS)
    return any(has_entry(facts.backend, f'{log} AND "{OUTPUT}"') for _ in waits)
