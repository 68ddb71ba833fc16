"""The tables: of the runs, and of the locks where the database keeps them."""

from __future__ import annotations

from .figures import Progress, Stats
from .locks import LockSlot, LockTask, LockToken
from .runs import JobRun, TaskRun, Trigger
from .statuses import Status

__all__ = ["JobRun", "LockSlot", "LockTask", "LockToken", "Progress", "Stats", "Status", "TaskRun", "Trigger"]
