"""Do the work of benchmarks/dashboard.py: time the pages with few runs and with many, in turn."""

from __future__ import annotations

import json
import os
import random
import statistics

import django
from django.conf import settings

from benchmarks.rows import CurrentDatabase, fill

DATABASES = json.loads(os.environ["BENCHMARK_DATABASES"])
ROUTER = CurrentDatabase()
settings.configure(
    SECRET_KEY="x",
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "cloudrun_jobs",
        "many_jobs",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
    STATIC_URL="static/",
    ROOT_URLCONF="benchmarks.http_urls",
    DATABASES=DATABASES,
    DATABASE_ROUTERS=[ROUTER],
    CLOUDRUN_JOBS={
        "ENVIRONMENT": "production",
        "PROJECT": "acme",
        "REGION": "asia-northeast1",
        "HTTP": {"SESSION": True},
    },
    USE_TZ=True,
)
django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.db import connections  # noqa: E402
from django.test import Client  # noqa: E402
from django.test.utils import CaptureQueriesContext  # noqa: E402

from benchmarks.dashboard import JOBS  # noqa: E402
from benchmarks.measuring import timed  # noqa: E402

READINGS, WARM_UP = 40, 3
VALUES = {
    "command": f"'job_' || n % {JOBS}",
    "trigger": "'schedule'",
    "status": "CASE WHEN n % 37 = 0 THEN 'failed' ELSE 'succeeded' END",
    "reason": "CASE WHEN n % 37 = 0 THEN 'exit_code' ELSE '' END",
}
PATHS = {"jobs": "jobs/", "one job": "jobs/job_3/"}


def main() -> None:
    clients = {}
    for name in DATABASES:
        if name != "default":
            ROUTER.name = name
            fill(name, VALUES)
            clients[name] = Client()
            clients[name].force_login(User.objects.create_superuser("root"))
    print(f"\nPages of {JOBS} jobs, p95 of {READINGS}: 1000 against 1 000 000 runs (ratio at most 2)")
    for what, path in PATHS.items():
        _report(what, clients, f"/cloudrun_jobs/dashboard/{path}")


def _report(what: str, clients: dict[str, Client], path: str) -> None:
    times: dict[str, list[float]] = {name: [] for name in clients}
    for _ in range(READINGS + WARM_UP):
        for ROUTER.name in random.sample(list(times), len(times)):
            times[ROUTER.name].append(timed(lambda: _get(clients[ROUTER.name], path)))
    few, many = (statistics.quantiles(seconds[WARM_UP:], n=20)[-1] for seconds in times.values())
    with CaptureQueriesContext(connections[ROUTER.name]) as captured:
        _get(clients[ROUTER.name], path)
    queries = sum("cloudrun_jobs_" in query["sql"] for query in captured)
    print(f"  {what:8} {few * 1000:7.2f} ms {many * 1000:7.2f} ms   {many / few:5.2f}   {queries} queries")


def _get(client: Client, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200, response.content


if __name__ == "__main__":
    main()
