"""Apply RunJob's overrides to a job's template: arguments are replaced, variables merged by name."""

from __future__ import annotations

from google.cloud import run_v2

from cloudrun_jobs.emulator import limits
from cloudrun_jobs.emulator.errors import invalid

Overrides = run_v2.RunJobRequest.Overrides
ContainerOverride = run_v2.RunJobRequest.Overrides.ContainerOverride


def apply(job: run_v2.Job, overrides: Overrides) -> run_v2.ExecutionTemplate:
    """Return the effective template of one execution."""
    template = run_v2.ExecutionTemplate(job.template)
    if overrides.task_count:
        limits.check_task_count(overrides.task_count)
        if overrides.task_count < template.parallelism:
            raise invalid(
                f"Violation in overrides.task_count: got {overrides.task_count}, expected at least the job's "
                f"parallelism of {template.parallelism}."
            )
        template.task_count = overrides.task_count
    if overrides.timeout:
        limits.check_timeout(template, overrides.timeout.total_seconds())
        template.template.timeout = overrides.timeout
    for override in overrides.container_overrides:
        _apply_to_container(_container(template.template, override.name), override)
    return template


def _container(template: run_v2.TaskTemplate, name: str) -> run_v2.Container:
    for container in template.containers:
        if container.name == name:
            return container
    # The name of a single container is not compared: gcloud creates jobs with unnamed containers.
    if len(template.containers) == 1:
        return template.containers[0]
    raise invalid(f"Container override for {name!r} matches no container of the job.")


def _apply_to_container(container: run_v2.Container, override: ContainerOverride) -> None:
    if override.clear_args and override.args:
        raise invalid("Violation in container_overrides: args must be empty when clear_args is true.")
    limits.check_args(override.args)
    limits.check_env(override.env)
    if override.args or override.clear_args:
        container.args = list(override.args)
    merged = {variable.name: variable for variable in [*container.env, *override.env]}
    container.env = list(merged.values())
