"""`manage.py sync_cloudrun_schedules`: make Cloud Scheduler match the schedules in the code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cloudrun_jobs.backends.cloudrun import CloudRunBackend
from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.deploy import schedules
from cloudrun_jobs.deploy.plan import Desired, Store
from cloudrun_jobs.management.sync import SyncCommand


class Command(SyncCommand):
    help = "Make Cloud Scheduler match the schedules that jobs declare."

    def store(self, backend: CloudRunBackend) -> Store:
        return backend.schedules()

    def declared(
        self, jobs: Sequence[CloudRunJobs], backend: CloudRunBackend, options: dict[str, Any]
    ) -> list[Desired]:
        return schedules.declared(jobs, backend)
