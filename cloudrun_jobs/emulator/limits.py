"""Check jobs and overrides against the limits of Cloud Run.

https://cloud.google.com/run/quotas
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cloudrun_jobs.emulator import messages
from cloudrun_jobs.emulator.errors import invalid
from cloudrun_jobs.emulator.template_limits import check_metadata, check_template, has_gpu

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.cloud import run_v2

JOB_ID = re.compile(r"[a-z](?:[-a-z0-9]*[a-z0-9])?")
MAX_JOB_ID_LENGTH = 63
MAX_TASKS = 10_000
MAX_TIMEOUT_SECONDS = 168 * 3600
MAX_GPU_TIMEOUT_SECONDS = MAX_DELAYED_TIMEOUT_SECONDS = 12 * 3600
MAX_RETRIES = 10
MAX_ARGS = MAX_ENV = 1000
MAX_ENV_BYTES = 32_768
RESERVED_ENV = re.compile(r"PORT|K_.*|CLOUD_RUN_.*|X_GOOGLE_.*")


def check_job_id(job_id: str, field: str = "CreateJobRequest.job_id") -> None:
    if not JOB_ID.fullmatch(job_id) or len(job_id) > MAX_JOB_ID_LENGTH:
        raise invalid(
            f"Violation in {field}: got {job_id!r}, but an id must use only lowercase "
            "letters, digits and hyphens, must begin with a letter, may not end with a hyphen, and must be "
            "less than 64 characters."
        )


def check_job(job: run_v2.Job) -> None:
    """Raise INVALID_ARGUMENT for a job that the service would reject."""
    template = job.template.template
    if not template.containers:
        raise invalid("Violation in Job.template.template.containers: a job needs at least one container.")
    check_task_count(job.template.task_count)
    check_timeout(job.template, template.timeout.total_seconds() if template.timeout else 0)
    if not 0 <= template.max_retries <= MAX_RETRIES:
        raise _out_of_range("max_retries", template.max_retries, f"between 0 and {MAX_RETRIES}")
    if not 0 <= job.template.parallelism <= job.template.task_count:
        raise _out_of_range("parallelism", job.template.parallelism, "between 0 and task_count")
    for container in template.containers:
        check_container(container)
    check_metadata(job, "Job")
    check_metadata(job.template, "Job.template")
    check_template(template, "template.template")
    _check_execution_token(job)


def check_container(container: run_v2.Container) -> None:
    if not container.image:
        raise invalid("Violation in Job.template.template.containers.image: an image is required.")
    check_args(container.args)
    check_env(container.env)


def check_task_count(count: int) -> None:
    if not 1 <= count <= MAX_TASKS:
        raise _out_of_range("task_count", count, f"between 1 and {MAX_TASKS}")


def check_timeout(template: run_v2.ExecutionTemplate, seconds: float) -> None:
    most, tasks = MAX_TIMEOUT_SECONDS, ""
    if has_gpu(template.template):
        most, tasks = MAX_GPU_TIMEOUT_SECONDS, " for tasks with a GPU"
    elif messages.to_json(template).get("delayExecution"):
        most, tasks = MAX_DELAYED_TIMEOUT_SECONDS, " for delayed executions"
    if not 1 <= seconds <= most:
        raise _out_of_range("timeout", f"{seconds:g}s", f"between 1s and {most}s{tasks}")


def check_args(args: Iterable[str]) -> None:
    count = len(list(args))
    if count > MAX_ARGS:
        raise _out_of_range("args", f"{count} arguments", f"at most {MAX_ARGS}")


def check_env(env: Iterable[run_v2.EnvVar]) -> None:
    variables = list(env)
    if len(variables) > MAX_ENV:
        raise _out_of_range("env", f"{len(variables)} variables", f"at most {MAX_ENV}")
    reserved = [variable.name for variable in variables if RESERVED_ENV.fullmatch(variable.name)]
    if reserved:
        raise invalid(
            f"The following reserved env names were provided: {', '.join(reserved)}. "
            "These values are automatically set by the system."
        )
    for variable in variables:
        _check_variable(variable)


def _check_variable(variable: run_v2.EnvVar) -> None:
    if not variable.name or "=" in variable.name or "\0" in variable.name:
        raise invalid(f"Violation in env: {variable.name!r} is not the name of an environment variable.")
    if len(variable.name) > MAX_ENV_BYTES or len(variable.value.encode()) > MAX_ENV_BYTES:
        raise invalid(
            f"Violation in env: the name and value of {variable.name[:60]!r} must be at most 32768 bytes each."
        )
    if "\0" in variable.value:
        raise invalid(f"Violation in env: the value of {variable.name!r} contains a NUL byte.")


def _check_execution_token(job: run_v2.Job) -> None:
    token = job.start_execution_token or job.run_execution_token
    if token and len(job.name.rpartition("/")[2]) + len(token) >= MAX_JOB_ID_LENGTH:
        raise invalid(
            "Violation in Job: the job id and the execution token together must be less than 63 characters."
        )


def _out_of_range(field: str, got: object, expected: str) -> Exception:
    return invalid(f"Violation in {field}: got {got}, expected {expected}.")
