"""Do the work of benchmarks/http.py that needs Django: python -m benchmarks.http_worker WORK."""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from urllib.parse import urlencode

import django
from django.conf import settings

from benchmarks.rows import CurrentDatabase, fill

DATABASES = json.loads(os.environ["BENCHMARK_DATABASES"])
TOKEN = "the token of the benchmark"
DIGEST = sha256(TOKEN.encode()).hexdigest()


ROUTER = CurrentDatabase()
settings.configure(
    SECRET_KEY="x",
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["django.contrib.contenttypes", "cloudrun_jobs", "tests.jobs"],
    ROOT_URLCONF="benchmarks.http_urls",
    DATABASES=DATABASES,
    DATABASE_ROUTERS=[ROUTER],
    CLOUDRUN_JOBS={
        "ENVIRONMENT": "local",
        "HTTP": {
            "TOKENS": [
                {
                    "name": "all",
                    "header": "x-token",
                    "sha256": DIGEST,
                    "scopes": ["read"],
                }
            ]
        },
    },
    USE_TZ=True,
)
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connections  # noqa: E402
from django.test import Client  # noqa: E402
from django.test.utils import CaptureQueriesContext  # noqa: E402
from django.utils import timezone  # noqa: E402

from benchmarks.measuring import interleaved, report, timed  # noqa: E402
from cloudrun_jobs.http.cursor import Cursor  # noqa: E402
from cloudrun_jobs.models import JobRun  # noqa: E402

JOBS = 200
READINGS = 100
VERIFICATIONS = 500
FILTERS = {
    "command": ["job_3", "unknown"],
    "status": ["succeeded", "failed", "lost", "cancelled"],
    "reason": ["exit_code", "timeout", "unknown"],
    "trigger": ["schedule", "http", "reserve"],
}
CLIENT = Client()
# Each filter has a page of runs in both databases.
VALUES = {
    "command": f"'job_' || n % {JOBS}",
    "trigger": "CASE WHEN n % 151 = 0 THEN 'http' WHEN n % 7 = 0 THEN 'delay' ELSE 'schedule' END",
    "status": "CASE WHEN n % 149 = 0 THEN 'lost' WHEN n % 37 = 0 THEN 'failed' ELSE 'succeeded' END",
    "reason": "CASE WHEN n % 149 = 0 THEN 'silent' WHEN n % 111 = 0 THEN 'timeout'"
    " WHEN n % 37 = 0 THEN 'exit_code' ELSE '' END",
}


def pages() -> None:
    """Time each list, with few runs and with many, in turn."""
    names = [name for name in DATABASES if name.startswith("runs_")]
    started = time.monotonic()
    for name in names:
        fill(name, VALUES)
    print(f"\nFilled in {time.monotonic() - started:.0f} s")
    queries = _queries(names)
    print(f"\nGET jobs/, p95 of {READINGS}: 20 000 against 1 000 000 runs of {JOBS} jobs (ratio at most 2)")
    for query in queries[names[0]]:
        _report(query, lambda name, query=query: _get(f"jobs/?{queries[name][query]}"), READINGS)
    _report("GET jobs/stats/", lambda name: _get("jobs/stats/"), READINGS // 4)


def _queries(names: list[str]) -> dict[str, dict[str, str]]:
    """Return the query strings for each database, by what they ask for."""
    found = {}
    for ROUTER.name in names:
        middle = JobRun.objects.newest_first()[JobRun.objects.count() // 2]
        until = urlencode({"until": middle.created_at.isoformat()})
        recent = urlencode({"since": (timezone.now() - timedelta(hours=1)).isoformat()})
        found[ROUTER.name] = {
            "all": "",
            "a page in the middle": urlencode({"cursor": Cursor(middle.created_at, middle.pk).encode()}),
            "since an hour ago": recent,
            "since 2000": "since=2000-01-01T00:00:00Z",
            "until the middle": until,
            "until 2000": "until=2000-01-02T00:00:00Z",
            **{f"{name}={value}": f"{name}={value}" for name, values in FILTERS.items() for value in values},
            "command and no run": "command=job_3&status=cancelled",
            "command, until the middle": f"command=job_3&{until}",
            "failed since an hour ago": f"status=failed&{recent}",
            "rare, until the middle": f"trigger=http&{until}",
        }
    return found


def _report(what: str, read: Callable[[str], object], readings: int) -> None:
    times: dict[str, list[float]] = {name: [] for name in DATABASES if name != "default"}
    for _ in range(readings):
        for ROUTER.name in random.sample(list(times), len(times)):
            times[ROUTER.name].append(timed(lambda: read(ROUTER.name)))
    few, many = (statistics.quantiles(seconds[2:], n=20)[-1] for seconds in times.values())
    with CaptureQueriesContext(connections[ROUTER.name]) as captured:
        read(ROUTER.name)
    ratio, queries = many / few, len(captured)
    print(f"  {what:26} {few * 1000:7.2f} ms {many * 1000:7.2f} ms   {ratio:5.2f}   {queries} query", flush=True)


def _get(path: str, **headers: str) -> None:
    response = CLIENT.get(f"/cloudrun_jobs/{path}", headers=headers or {"x-token": TOKEN})
    assert response.status_code == 200, response.content


def prepare() -> None:
    """Migrate, and create the job that is sent."""
    import grpc
    from google.cloud import run_v2
    from google.cloud.run_v2.services.jobs.transports import JobsGrpcTransport

    from benchmarks.sending import create_job

    call_command("migrate", verbosity=0)
    channel = grpc.insecure_channel(os.environ["BENCHMARK_ENDPOINT"])
    create_job(run_v2.JobsClient(transport=JobsGrpcTransport(channel=channel)))


def verify() -> None:
    """Time a request with an ID token, which is verified, against one with a token of the settings."""
    from cloudrun_jobs.emulator import Emulator

    email, audience = "scheduler@acme.iam.gserviceaccount.com", "https://web-abc.a.run.app"
    run = JobRun.objects.create(command="echo", argv=["echo"], environment="local", trigger="delay")
    with Emulator() as emulator:
        settings.CLOUDRUN_JOBS["HTTP"]["OIDC"] = {
            "audience": audience,
            "emails": [email],
            "scopes": ["read"],
            "issuer": emulator.http,
            "certs_url": f"{emulator.http}/oauth2/v1/certs",
        }
        id_token = emulator.tokens.id_token(email, audience, emulator.http)
        sides = {
            "a token of the settings": lambda: timed(lambda: _get(f"jobs/{run.pk}/")),
            "the same once more (noise)": lambda: timed(lambda: _get(f"jobs/{run.pk}/")),
            "an ID token": lambda: timed(lambda: _get(f"jobs/{run.pk}/", authorization=f"Bearer {id_token}")),
        }
        interleaved(sides, 20)
        report("GET jobs/<run>/ with (at most 1.5)", interleaved(sides, VERIFICATIONS), base=next(iter(sides)))


{"pages": pages, "prepare": prepare, "verify": verify}[sys.argv[1]]()
