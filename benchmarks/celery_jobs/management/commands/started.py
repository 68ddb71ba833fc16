"""The same job on Cloud Run."""

from __future__ import annotations

from benchmarks.celery_jobs.management.commands import queued


class Command(queued.Command):
    pass
