"""A queue's worker runs what the record says, whatever is delivered, and how often."""

from __future__ import annotations

from datetime import timedelta
from threading import Thread
from typing import Any
from uuid import uuid4

import pytest
from django.core.management.base import CommandError
from django.db import connection

from cloudrun_jobs import environ
from cloudrun_jobs.exceptions import JobInterrupted
from cloudrun_jobs.execution.delivery import Report, Result, deliver, receive
from cloudrun_jobs.models import JobRun, Status, TaskRun, Trigger
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.registry import find_job

WORKER, OTHER = "celery@one/11", "celery@two/22"
SILENT = timedelta(minutes=3)


def new_run(argv: list[str], **values: Any) -> JobRun:
    values = {"status": Status.SENT, "sent_at": Now(), "backend": "celery", "queue": "ingest", **values}
    run = JobRun(pk=uuid4(), command=argv[0], argv=argv, environment="test", trigger=Trigger.DELAY, **values)
    run.execution = run.execution_name = str(run.pk)
    run.save(force_insert=True)
    return run


def work(run: JobRun, index: int | None = 0, process: str = WORKER) -> Report:
    run = JobRun.objects.get(pk=run.pk)
    job: Any = find_job(run.command)
    return deliver(job, receive(run, index, process))
