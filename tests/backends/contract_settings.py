"""The settings of the processes that run the job of the contract: no more than they need."""

from __future__ import annotations

import os

SECRET_KEY = "only for tests"
INSTALLED_APPS = ["django.contrib.contenttypes", "cloudrun_jobs", "cloudrun_jobs.testing"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["TESTS_DATABASE"],
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
    }
}
USE_TZ = True
CLOUDRUN_JOBS = {"ENVIRONMENT": "production", "BACKEND": "tests.backends.own.ProcessBackend"}
