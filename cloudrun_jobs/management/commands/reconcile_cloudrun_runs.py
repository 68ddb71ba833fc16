"""`manage.py cloudrun_jobs reconcile` as a job, for a schedule of its own.

The project has it if the settings say so: CLOUDRUN_JOBS["RECONCILE"] = {"schedule": "*/5 * * * *"}.
"""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError

from cloudrun_jobs import backends, conf
from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.exceptions import InvalidSettings
from cloudrun_jobs.runs.reconcile import DENIED, reconcile


class Command(CloudRunJobs):
    help = "Send the runs that were not sent, and end those whose execution has ended without a word."
    timeout = 300

    @property
    def is_enabled(self) -> bool:
        """Whether the settings declare it; what is wrong with them, a check of their own tells."""
        try:
            return bool(conf.load().reconcile)
        except InvalidSettings:
            return False

    def run(self, *args: Any, **options: Any) -> dict[str, int]:
        done = reconcile(backends.current())
        if done[DENIED]:
            raise CommandError(f"Some runs could not be looked after for want of a permission: {dict(done)}.")
        return dict(done)
