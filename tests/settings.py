"""Settings of the test suite: the app, a few jobs to test it with, and the example's."""

from __future__ import annotations

SECRET_KEY = "only for tests"
INSTALLED_APPS = ["cloudrun_jobs", "tests.jobs"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
TIME_ZONE = "Asia/Tokyo"
USE_TZ = True
CLOUDRUN_JOBS = {"ENVIRONMENT": "test"}
