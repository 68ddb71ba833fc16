"""An empty job on Celery with the lock that jobs have by default."""

from __future__ import annotations

from benchmarks.celery_jobs.management.commands import queued


class Command(queued.Command):
    parallelism, overlap = 1, "skip"
