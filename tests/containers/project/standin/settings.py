"""Settings of the stand-in."""

from __future__ import annotations

import os

SECRET_KEY = "only for tests"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["cloudrun_jobs", "standin"]
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("TESTS_DATABASE", ":memory:")}
}
ROOT_URLCONF = "standin.web"
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
CLOUDRUN_JOBS = {"ENVIRONMENT": "test"}
