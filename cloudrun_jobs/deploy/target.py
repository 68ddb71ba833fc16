"""Select the backend that has the jobs and the schedules in the cloud."""

from __future__ import annotations

from cloudrun_jobs import backends
from cloudrun_jobs.backends.cloudrun import CloudRunBackend


def cloudrun_backend_or_none() -> CloudRunBackend | None:
    """Return the first backend that is Cloud Run; None in the environments "local" and "test"."""
    return next((each for each in backends.configured() if isinstance(each, CloudRunBackend)), None)
