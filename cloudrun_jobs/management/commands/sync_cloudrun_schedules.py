"""`manage.py sync_cloudrun_schedules`: make Cloud Scheduler match the schedules in the code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cloudrun_jobs import schedules
from cloudrun_jobs.backends.cloudrun import CloudRunBackend
from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.management.syncing import SyncCommand
from cloudrun_jobs.plans import Declared, Store


class Command(SyncCommand):
    help = "Make Cloud Scheduler match the schedules that jobs declare."

    def store(self, backend: CloudRunBackend) -> Store:
        return backend.schedules()

    def declared(
        self, jobs: Sequence[CloudRunJobs], backend: CloudRunBackend, options: dict[str, Any]
    ) -> list[Declared]:
        return schedules.declared(jobs, backend)
