"""The tables: of the runs, and of the locks where the database keeps them."""

from __future__ import annotations

from .locks import LockSlot, LockTask, LockToken
from .runs import JobRun, Status, TaskRun, Trigger

__all__ = ["JobRun", "LockSlot", "LockTask", "LockToken", "Status", "TaskRun", "Trigger"]
