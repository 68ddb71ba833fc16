"""An empty job on Celery with locks: as many may run as the worker has processes."""

from __future__ import annotations

from benchmarks.celery_jobs.management.commands import queued


class Command(queued.Command):
    parallelism, overlap = 4, "skip"
