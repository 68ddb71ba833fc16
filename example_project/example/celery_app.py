"""The Celery app: `celery -A example.celery_app worker`, and `beat`."""

from __future__ import annotations

import os

from celery import Celery

from cloudrun_jobs.contrib.celery import beat_schedule

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example.settings")

app = Celery("example")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.conf.beat_schedule = beat_schedule()
