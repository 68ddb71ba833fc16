"""Where this process runs: which task of which execution, as Cloud Run tells a container.

The variables are those of https://cloud.google.com/run/docs/container-contract#jobs-env-vars.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from cloudrun_jobs.conf import EXECUTION_KEYS, PREFIX

# The run id; "<Scheduler job>|<cron>|<time zone>" of the schedule; and a reservation's time in ISO 8601.
RUN_ID_VARIABLE, SCHEDULE_VARIABLE, RESERVED_VARIABLE = EXECUTION_VARIABLES = tuple(
    PREFIX + key for key in EXECUTION_KEYS
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudRunTask:
    """One attempt of one task of an execution."""

    job: str
    execution: str  # The short name, such as "refresh-token-production-x7k2p".
    index: int  # Counts from 0.
    attempt: int  # Counts from 0; a retry is one more.
    count: int  # Tasks in the execution.
    run_id: str  # Empty when nobody called delay(): a schedule's tick, or a person at the console.
    reserved_for: str = ""  # When a reserved run was due, in ISO 8601.
    schedule: str = ""  # "entry|cron|time zone" of the schedule that started it; empty for a person.


def current_task(environ: Mapping[str, str] = os.environ) -> CloudRunTask | None:
    """Return the task this process works for, or None outside Cloud Run."""
    if not in_container(environ):
        return None
    return CloudRunTask(
        job=environ.get("CLOUD_RUN_JOB", ""),
        execution=environ["CLOUD_RUN_EXECUTION"],
        index=int(environ.get("CLOUD_RUN_TASK_INDEX", "0")),
        attempt=int(environ.get("CLOUD_RUN_TASK_ATTEMPT", "0")),
        count=int(environ.get("CLOUD_RUN_TASK_COUNT", "1")),
        run_id=environ.get(RUN_ID_VARIABLE, ""),
        reserved_for=environ.get(RESERVED_VARIABLE, ""),
        schedule=environ.get(SCHEDULE_VARIABLE, ""),
    )


def in_container(environ: Mapping[str, str] = os.environ) -> bool:
    """Say whether Cloud Run started this process."""
    return bool(environ.get("CLOUD_RUN_EXECUTION"))
