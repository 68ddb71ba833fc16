"""`manage.py cloudrun_jobs reconcile` as a job, so that it can have a schedule.

The project has this job if the settings declare it: CLOUDRUN_JOBS["RECONCILE"] = {"schedule": "*/5 * * * *"}.
"""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError

from cloudrun_jobs import conf
from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.exceptions import InvalidSettings
from cloudrun_jobs.runs.reconcile import DENIED, reconcile_all


class Command(CloudRunJobs):
    help = "Dispatch pending runs and finish runs whose execution ended without reporting."
    timeout = 300

    @property
    def is_enabled(self) -> bool:
        """True if the settings declare the job. A system check reports invalid settings."""
        try:
            return bool(conf.load().reconcile)
        except InvalidSettings:
            return False

    def run(self, *args: Any, **options: Any) -> dict[str, int]:
        done = reconcile_all()
        if done[DENIED]:
            raise CommandError(f"Some runs could not be reconciled: a permission is missing. {dict(done)}.")
        return dict(done)
