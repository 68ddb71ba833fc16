"""A Celery app with one task, which lasts until its worker is stopped."""

from __future__ import annotations

import os
import time

from celery import Celery
from celery.utils.log import get_task_logger

app = Celery("standin")
app.conf.worker_soft_shutdown_timeout = float(os.environ["CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT"])


def hold() -> None:
    get_task_logger(__name__).info("holding")
    while True:
        time.sleep(0.1)


app.task(hold, name="hold", acks_late=True)
