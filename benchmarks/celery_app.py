"""The Celery app of benchmarks/celery.py, and the empty tasks to compare with."""

from __future__ import annotations

import os
import time
from functools import cache

import django
from celery import Celery
from redis import Redis

URL = os.environ["BENCHMARK_BROKER"]

os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.celery_settings"
app = Celery("bench", broker=URL)
app.conf.update(
    task_default_queue="bench",
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    # Otherwise, Celery closes the connection to the database after each task.
    CELERY_DB_REUSE_MAX=int(os.environ.get("BENCHMARK_REUSE", "1000")),
)
app.set_default()
django.setup()


@cache
def redis() -> Redis:
    return Redis.from_url(URL)


def write_stamp() -> None:
    """Tell the waiting sender when this was called."""
    redis().rpush("stamps", time.monotonic())


@app.task(acks_late=True)
def empty() -> None:
    pass


@app.task(acks_late=True)
def stamped() -> None:
    write_stamp()
