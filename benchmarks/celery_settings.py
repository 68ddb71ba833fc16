"""The settings of benchmarks/celery.py."""

from __future__ import annotations

import json
import os

SECRET_KEY = "x"
INSTALLED_APPS = ["django.contrib.contenttypes", "cloudrun_jobs", "benchmarks.celery_jobs"]
DATABASES = {"default": {**json.loads(os.environ["BENCHMARK_DATABASE"]), "CONN_MAX_AGE": 60}}
USE_TZ = True
CLOUDRUN_JOBS = {
    "ENVIRONMENT": "production",
    "PROJECT": "acme",
    "REGION": "asia-northeast1",
    "OPTIONS": {"runs_per_minute": 10_000},
    "BACKENDS": {
        "celery": {
            "BACKEND": "cloudrun_jobs.backends.celery.CeleryBackend",
            "OPTIONS": {"app": "benchmarks.celery_app.app", "queues": ["bench"]},
        }
    },
    "ROUTES": {"queued*": "celery"},
}
