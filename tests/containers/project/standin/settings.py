"""Settings of the stand-in."""

from __future__ import annotations

SECRET_KEY = "only for tests"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["cloudrun_jobs", "standin"]
ROOT_URLCONF = "standin.web"
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
CLOUDRUN_JOBS = {"ENVIRONMENT": "test"}
