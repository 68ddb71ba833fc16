"""Do the work of benchmarks/admin.py: time the admin's list of runs with few runs and with many, in turn."""

from __future__ import annotations

import json
import os
import random
import statistics
from urllib.parse import urlencode

import django
from django.conf import settings

from benchmarks.rows import CurrentDatabase, fill
from tests.settings import TEMPLATES

DATABASES = json.loads(os.environ["BENCHMARK_DATABASES"])
ROUTER = CurrentDatabase()
settings.configure(
    SECRET_KEY="x",
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions",
        "cloudrun_jobs",
        "tests.jobs",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=TEMPLATES,
    STATIC_URL="static/",
    ROOT_URLCONF="benchmarks.admin_urls",
    DATABASES=DATABASES,
    DATABASE_ROUTERS=[ROUTER],
    CLOUDRUN_JOBS={"ENVIRONMENT": "production", "PROJECT": "acme", "REGION": "asia-northeast1"},
    USE_TZ=True,
)
django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.db import connections  # noqa: E402
from django.test import Client  # noqa: E402
from django.test.utils import CaptureQueriesContext  # noqa: E402

from benchmarks.measuring import timed  # noqa: E402
from cloudrun_jobs.models import JobRun  # noqa: E402

READINGS, WARM_UP = 50, 3
# Each filter has more than a page of runs in both databases, except those of the five oldest runs.
VALUES = {
    "command": "CASE WHEN n <= 5 THEN 'rare' ELSE 'job_' || n % 8 END",
    "trigger": "CASE WHEN n <= 5 THEN 'manual' WHEN n % 9 = 0 THEN 'http' ELSE 'schedule' END",
    "status": "CASE WHEN n <= 5 THEN 'lost' WHEN n % 7 = 0 THEN 'failed' ELSE 'succeeded' END",
    "reason": "CASE WHEN n <= 5 THEN 'silent' WHEN n % 7 = 0 THEN 'exit_code' ELSE '' END",
}
QUERIES = {
    "all": {},
    "the last page": {"p": 10},
    "status": {"status": "failed"},
    "status, 5 runs": {"status": "lost"},
    "status, no run": {"status": "cancelled"},
    "job": {"job": "job_3"},
    "job, 5 runs": {"job": "rare"},
    "reason": {"reason": "exit_code"},
    "reason, 5 runs": {"reason": "silent"},
    "trigger": {"trigger": "http"},
    "trigger, 5 runs": {"trigger": "manual"},
    "job and status, no run": {"job": "job_3", "status": "cancelled"},
    "status and trigger, no run": {"status": "lost", "trigger": "http"},
    "search for a job": {"q": "job_5"},
    "search for a part of jobs": {"q": "job"},
    "search for an execution": {"q": "execution-500"},
    "search for nothing": {"q": "nothing"},
}


def main() -> None:
    names = [name for name in DATABASES if name != "default"]
    clients, dates = {}, {}
    for name in names:
        ROUTER.name = name
        fill(name, VALUES)
        clients[name] = Client()
        clients[name].force_login(User.objects.create_superuser("root"))
        oldest, newest = JobRun.objects.order_by("created_at")[:1][0], JobRun.objects.newest_first()[:1][0]
        dates[name] = {
            "created today": {"since": newest.created_at.date()},
            "created since": {"since": oldest.created_at.date()},
            "created until": {"until": newest.created_at.date()},
            "created long ago": {"until": "2000-01-01"},
            "search for eight digits": {"q": str(oldest.pk)[:8]},
            "search for an id": {"q": oldest.pk.hex},
        }
    print(f"\nThe admin's list of runs, p95 of {READINGS}: 1000 against 1 000 000 runs (ratio at most 2)")
    for what in [*QUERIES, *dates[names[0]]]:
        paths = {
            name: f"/admin/cloudrun_jobs/jobrun/?{urlencode(({**QUERIES, **dates[name]})[what])}" for name in names
        }
        _report(what, clients, paths)


def _report(what: str, clients: dict[str, Client], paths: dict[str, str]) -> None:
    times: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(READINGS + WARM_UP):
        for ROUTER.name in random.sample(list(times), len(times)):
            times[ROUTER.name].append(timed(lambda: _get(clients[ROUTER.name], paths[ROUTER.name])))
    few, many = (statistics.quantiles(seconds[WARM_UP:], n=20)[-1] for seconds in times.values())
    with CaptureQueriesContext(connections[ROUTER.name]) as captured:
        _get(clients[ROUTER.name], paths[ROUTER.name])
    queries = sum("cloudrun_jobs_" in query["sql"] for query in captured)
    print(
        f"  {what:28} {few * 1000:7.2f} ms {many * 1000:7.2f} ms   {many / few:5.2f}   {queries} queries",
        flush=True,
    )


def _get(client: Client, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200, response.content


if __name__ == "__main__":
    main()
