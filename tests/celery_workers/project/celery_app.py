"""The Celery app of the workers."""

from __future__ import annotations

import os

from celery import Celery

app = Celery("project", broker=os.environ.get("CELERY_TEST_BROKER"))
app.conf.broker_transport_options = {"unacked_restore_interval": 1, "unacked_restore_throttle": 1}
if "VISIBILITY_TIMEOUT" in os.environ:
    app.conf.broker_transport_options["visibility_timeout"] = int(os.environ["VISIBILITY_TIMEOUT"])
app.conf.worker_prefetch_multiplier = 1
app.conf.broker_connection_retry_on_startup = True
