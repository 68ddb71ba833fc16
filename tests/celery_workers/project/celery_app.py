"""The Celery app of the workers."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import worker_init

app = Celery("project", broker=os.environ.get("CELERY_TEST_BROKER"))
app.conf.broker_transport_options = {"unacked_restore_interval": 1, "unacked_restore_throttle": 1}
if "VISIBILITY_TIMEOUT" in os.environ:
    app.conf.broker_transport_options["visibility_timeout"] = int(os.environ["VISIBILITY_TIMEOUT"])
app.conf.worker_prefetch_multiplier = 1
app.conf.broker_connection_retry_on_startup = True


@worker_init.connect  # type: ignore[untyped-decorator]  # Celery has no annotations
def retry_soon(**kwargs: Any) -> None:
    """Let tests wait less for the second attempt."""
    from cloudrun_jobs.contrib.celery import task

    task.MAX_RETRY_DELAY = 0.25
