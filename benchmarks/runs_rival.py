"""Times django-tasks-google's `enqueue()`, in its own environment: runs_rival.py CALLS; 0 migrates."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time

import django
from django.conf import settings

OPTIONS = {
    "project_id": "acme",
    "location": "asia-northeast1",
    "base_url": "https://example.com/tasks/",
    "oidc_service_account": "app-jobs@acme.iam.gserviceaccount.com",
}
settings.configure(
    SECRET_KEY="x",
    INSTALLED_APPS=["django.contrib.contenttypes", "django_tasks_google"],
    DATABASES={"default": json.loads(os.environ["BENCHMARK_DATABASES"])["rival"]},
    TASKS={
        "default": {
            "BACKEND": "django_tasks_google.backends.CloudRunJobsBackend",
            "QUEUES": ["echo-production"],
            "OPTIONS": OPTIONS,
        }
    },
    USE_TZ=True,
)
django.setup()

import grpc  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.tasks import task  # noqa: E402
from google.cloud import run_v2  # noqa: E402
from google.cloud.run_v2.services.jobs.transports import JobsGrpcTransport  # noqa: E402

Client = run_v2.JobsClient
waited = 0.0


class LocalClient(Client):
    """Google's client, made for each call as theirs is, but of the emulator."""

    def __init__(self) -> None:
        if secured := os.environ.get("BENCHMARK_SECURED"):
            super().__init__(client_options={"api_endpoint": secured})
        else:
            channel = grpc.insecure_channel(os.environ["BENCHMARK_ENDPOINT"])
            super().__init__(transport=JobsGrpcTransport(channel=channel))

    def run_job(self, *args: object, **kwargs: object) -> object:
        global waited
        start = time.perf_counter()
        try:
            return super().run_job(*args, **kwargs)
        finally:
            waited = time.perf_counter() - start


run_v2.JobsClient = LocalClient


@task(queue_name="echo-production")
def echo(partner: int) -> None:
    """Do nothing."""


def call() -> tuple[float, float]:
    start = time.perf_counter()
    result = echo.enqueue(partner=7)
    seconds = time.perf_counter() - start
    assert result.id
    return seconds, seconds - waited


if not int(sys.argv[1]):
    call_command("migrate", verbosity=0)
    sys.exit()
for _ in range(10):
    call()
whole, own = zip(*(call() for _ in range(int(sys.argv[1]))), strict=True)

from django_tasks_google.models import TaskExecution  # noqa: E402

assert TaskExecution.objects.latest("pk").cloud_run_job_execution_name, "It was not sent."
sys.stdout.write(json.dumps({"whole": statistics.median(whole), "beside run_job": statistics.median(own)}))
