"""The WSGI application of benchmarks/http.py: the HTTP API, and a view that makes a client per call."""

from __future__ import annotations

import json
import os
from functools import partial
from hashlib import sha256
from typing import Any

import django
from django.conf import settings

TOKEN = "the token of the benchmark"
SECURED = os.environ.get("BENCHMARK_SECURED")
ENDPOINT = os.environ["BENCHMARK_ENDPOINT"]
ENTRY = {"name": "all", "header": "x-token", "sha256": sha256(TOKEN.encode()).hexdigest(), "scopes": ["run"]}

settings.configure(
    SECRET_KEY="x",
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["django.contrib.contenttypes", "cloudrun_jobs", "tests.jobs"],
    ROOT_URLCONF=__name__,
    DATABASES={"default": {**json.loads(os.environ["BENCHMARK_DATABASES"])["default"], "CONN_MAX_AGE": None}},
    CLOUDRUN_JOBS={
        "ENVIRONMENT": "production",
        "PROJECT": "acme",
        "REGION": "asia-northeast1",
        "OPTIONS": {"endpoint": None if SECURED else ENDPOINT, "runs_per_minute": 10_000},
        "HTTP": {"TOKENS": [ENTRY]},
    },
    LOGGING={
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"stderr": {"class": "logging.StreamHandler"}},
        "root": {"handlers": ["stderr"], "level": "ERROR"},
    },
    USE_TZ=True,
)
django.setup()

import grpc  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.urls import include, path  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402
from google.cloud import run_v2  # noqa: E402
from google.cloud.run_v2.services import jobs  # noqa: E402
from google.cloud.run_v2.services.jobs import JobsClient  # noqa: E402
from google.cloud.run_v2.services.jobs.transports import JobsGrpcTransport  # noqa: E402

from tests.jobs.management.commands.echo import Command  # noqa: E402

Command.http_options = ("partner",)
if SECURED:
    jobs.JobsClient = partial(JobsClient, client_options={"api_endpoint": SECURED})


def new_client() -> Any:
    if SECURED:
        return JobsClient(client_options={"api_endpoint": SECURED})
    return JobsClient(transport=JobsGrpcTransport(channel=grpc.insecure_channel(ENDPOINT)))


@csrf_exempt
def run_job(request: HttpRequest, number: int) -> HttpResponse:
    """Start the job as a view without this package does."""
    container = run_v2.RunJobRequest.Overrides.ContainerOverride(args=["manage.py", "job", f"--id={number}"])
    overrides = run_v2.RunJobRequest.Overrides(container_overrides=[container])
    name = "projects/acme/locations/asia-northeast1/jobs/echo-production"
    new_client().run_job(request=run_v2.RunJobRequest(name=name, overrides=overrides))
    return HttpResponse()


urlpatterns = [
    path("cloudrun_jobs/", include("cloudrun_jobs.urls")),
    path("job/<int:number>", run_job),
]
application = get_wsgi_application()
