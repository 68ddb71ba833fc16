"""Settings of the test suite: the app, a few jobs to test it with, and the example's."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

# Here and not in pytest's configuration: processes that tests start need it too.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "example_project"))
# Whatever environment a test puts its process into, the example's settings load there.
os.environ.setdefault("EXAMPLE_SECRET_KEY", "only for tests")

from example import settings as example

SECRET_KEY = "only for tests"
INSTALLED_APPS = [*example.INSTALLED_APPS, "tests.jobs"]
MIDDLEWARE = example.MIDDLEWARE
TEMPLATES = example.TEMPLATES
ROOT_URLCONF = example.ROOT_URLCONF
STATIC_URL = example.STATIC_URL
# A file: threads have connections of their own. That it survives a power cut is of no use here.
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("TESTS_DATABASE", ":memory:"),
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": "PRAGMA synchronous=OFF"},
        "TEST": {"NAME": str(Path(tempfile.gettempdir()) / f"cloudrun_jobs-{os.getpid()}.sqlite3")},
    }
}
TIME_ZONE = "Asia/Tokyo"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"  # The default of Django 6.0.
USE_TZ = True
CLOUDRUN_JOBS = {"ENVIRONMENT": "test"}
