"""The part of a Celery worker that runs jobs, and the schedules of `celery beat`."""

from __future__ import annotations

from cloudrun_jobs.contrib.celery.beat import beat_schedule

__all__ = ["beat_schedule"]
