"""A queue in place of Celery: it records the runs that are sent, or raises an error."""

from __future__ import annotations

from typing import Any, ClassVar

from cloudrun_jobs.backends import Request
from cloudrun_jobs.backends.celery import CeleryBackend
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.operations import MockOperation

#: Settings by which the job `echo` runs on the queue.
ON_QUEUE: dict[str, Any] = {
    "ENVIRONMENT": "production",
    "PROJECT": "acme",
    "REGION": "asia-northeast1",
    "BACKENDS": {
        "celery": {
            "BACKEND": f"{__name__}.RecordingQueue",
            "OPTIONS": {"queues": ["ingest", "other"], "disabled": False},
        }
    },
    "ROUTES": {"echo": "celery"},
}


class RecordingQueue(CeleryBackend):
    sent: ClassVar[list[Request]] = []
    error: ClassVar[Exception | None] = None

    def submit(self, run: JobRun, request: Request, *, timeout: float | None = None) -> Any:
        if self.error:
            raise self.error
        self.sent.append(request)
        return MockOperation(request.job, request.run_id)
