"""The models: run records, and locks kept in the database."""

from __future__ import annotations

from cloudrun_jobs.models.locks import LockSlot, LockTask, LockToken
from cloudrun_jobs.models.runs import JobRun, TaskRun, Trigger
from cloudrun_jobs.models.statuses import Status
from cloudrun_jobs.models.values import Progress, Stats

__all__ = ["JobRun", "LockSlot", "LockTask", "LockToken", "Progress", "Stats", "Status", "TaskRun", "Trigger"]
