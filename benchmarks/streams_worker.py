"""The ASGI application of benchmarks/streams.py; `python -m benchmarks.streams_worker NUMBER` makes runs."""

from __future__ import annotations

import json
import os
import sys
from hashlib import sha256
from typing import Any

import django
from django.conf import settings

DATABASE = json.loads(os.environ["BENCHMARK_DATABASE"])
TOKEN = {"name": "reader", "header": "x-token", "sha256": sha256(b"token").hexdigest(), "scopes": ["read"]}
CLOUDRUN_JOBS: dict[str, Any] = {"ENVIRONMENT": "test", "HTTP": {"TOKENS": [TOKEN]}}
settings.configure(
    SECRET_KEY="x",
    ALLOWED_HOSTS=["localhost"],
    INSTALLED_APPS=["django.contrib.contenttypes", "cloudrun_jobs"],
    # PostgreSQL logs the statements, to be counted.
    DATABASES={"default": {**DATABASE, "OPTIONS": {"options": "-c log_statement=all"}}},
    CLOUDRUN_JOBS=CLOUDRUN_JOBS,
    ROOT_URLCONF="cloudrun_jobs.urls",
    USE_TZ=True,
)
django.setup()

from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.management import call_command  # noqa: E402

from cloudrun_jobs.models import JobRun, TaskRun  # noqa: E402

application = get_asgi_application()


def make(number: int) -> None:
    """Make running runs with a task, and print their ids."""
    call_command("migrate", verbosity=0)
    runs = [JobRun(command="echo", environment="test", trigger="delay", status="running") for _ in range(number)]
    JobRun.objects.bulk_create(runs)
    TaskRun.objects.bulk_create(TaskRun(run=run, index=0, worker=run.pk, progress_done=1) for run in runs)
    print(json.dumps([str(run.pk) for run in runs]))


if __name__ == "__main__":
    make(int(sys.argv[1]))
