"""Backends as users write them, with public names only."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

from django.db import connections

from cloudrun_jobs.backends import Backend, Request
from cloudrun_jobs.backends.recorded import RecordOperation
from cloudrun_jobs.execution.delivery import Result, deliver, receive
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.registry import find_job

MANAGE = Path(__file__).parents[1] / "manage.py"


class ThreadBackend(Backend):
    """Runs jobs in threads of the calling process."""

    tracks_executions = False
    threads: ClassVar[list[Thread]] = []

    def submit(self, run: JobRun, request: Request, *, timeout: float | None = None) -> RecordOperation:
        thread = Thread(target=work, args=(request.run_id,))
        self.threads.append(thread)
        thread.start()
        return RecordOperation(run, self)


def work(run_id: str) -> None:
    """Run what the record says, as often as the job's `max_retries` allow."""
    result = Result.RETRY
    while result == Result.RETRY:
        run = JobRun.objects.get(pk=run_id)
        job: Any = find_job(run.command)
        result = deliver(job, receive(run, 0, process=f"threads/{os.getpid()}")).result
    connections.close_all()
