"""Settings of the workers and of their manage.py, with the test's servers from the environment."""

from __future__ import annotations

import json
import os

given = json.loads(os.environ["CELERY_TEST_SETTINGS"])

SECRET_KEY = "only for tests"
INSTALLED_APPS = ["cloudrun_jobs", "tests.celery_workers.project"]
DATABASES = {"default": given["database"]}
USE_TZ = True
CLOUDRUN_JOBS = given["jobs"]
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"cloudrun_jobs": {"handlers": ["console"], "level": "INFO", "propagate": False}},
}
