"""`JobSpec`: the declarations of a job, from a command class and the settings."""

from __future__ import annotations

from cloudrun_jobs.spec.job import (
    DECLARATIONS,
    MAX_NAME,
    JobSpec,
    check_declarations,
    declare,
    declared_name,
    is_interpreter,
    resource_name,
)
from cloudrun_jobs.spec.resources import canonical_cpu, canonical_memory
from cloudrun_jobs.spec.schedule import Schedule

__all__ = [
    "DECLARATIONS",
    "MAX_NAME",
    "JobSpec",
    "Schedule",
    "canonical_cpu",
    "canonical_memory",
    "check_declarations",
    "declare",
    "declared_name",
    "is_interpreter",
    "resource_name",
]
