"""The base class of the batch jobs."""

from __future__ import annotations

from django.conf import settings

from cloudrun_jobs import CloudRunJobs


class BatchJob(CloudRunJobs):
    """A job that Cloud Scheduler runs inside the web service, once the service has a URL."""

    time_zone = "Asia/Seoul"
    target = "service"

    @property
    def is_enabled(self) -> bool:
        return bool(getattr(settings, "SERVICE_URL", ""))
