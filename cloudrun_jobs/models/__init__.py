"""The models: run records, items of runs, and locks kept in the database."""

from __future__ import annotations

from cloudrun_jobs.models.items import ItemChunk, ItemList
from cloudrun_jobs.models.jobs import Job
from cloudrun_jobs.models.locks import LockSlot, LockTask, LockToken
from cloudrun_jobs.models.runs import JobRun, TaskRun, Trigger
from cloudrun_jobs.models.statuses import Status
from cloudrun_jobs.models.values import Claims, Progress, Stats

__all__ = [
    "Claims",
    "ItemChunk",
    "ItemList",
    "Job",
    "JobRun",
    "LockSlot",
    "LockTask",
    "LockToken",
    "Progress",
    "Stats",
    "Status",
    "TaskRun",
    "Trigger",
]
