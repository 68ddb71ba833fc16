"""`manage.py sync_cloudrun_schedules`: make the Scheduler jobs match the schedules in the code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cloudrun_jobs.backends.cloudrun import CloudRunBackend
from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.deploy import schedules
from cloudrun_jobs.deploy.plan import Desired
from cloudrun_jobs.management.sync import SyncCommand
from cloudrun_jobs.spec import JobSpec

if TYPE_CHECKING:
    from cloudrun_jobs.deploy.cloudrun.schedules import Schedules


class Command(SyncCommand):
    help = "Make the Scheduler jobs match the schedules in the code."

    def store(self, backend: CloudRunBackend) -> Schedules:
        from cloudrun_jobs.deploy.cloudrun.schedules import Schedules

        return Schedules(backend)

    def desired(
        self, jobs: Sequence[CloudRunJobs], store: Schedules, backend: CloudRunBackend, options: dict[str, Any]
    ) -> Sequence[Desired]:
        return schedules.desired(jobs, backend)

    def is_deployed(self, spec: JobSpec, backend: CloudRunBackend) -> bool:
        return not spec.schedules or schedules.is_deployed(spec, backend)
