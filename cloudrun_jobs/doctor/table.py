"""The table of all checks, and the ids of their findings."""

from __future__ import annotations

from cloudrun_jobs.doctor.checks import access, jobs, runtime, schedules, secrets, service

CHECKS = (*access.CHECKS, *jobs.CHECKS, *schedules.CHECKS, *service.CHECKS, *secrets.CHECKS, *runtime.CHECKS)
EXECUTION_FAILED = "execution_failed"  # Of `--execute`.
IDS = tuple(dict.fromkeys([*(id_ for check in CHECKS for id_ in check.ids), EXECUTION_FAILED]))
