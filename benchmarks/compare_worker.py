"""Time one work with the package that PYTHONPATH names: the worker of benchmarks/compare.py.

It uses only what two releases have in common: `delay()`, `LockManager` and the commands.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import sys
import time
from collections.abc import Callable

import django
from django.conf import settings

WORK = sys.argv[1]
PLACES = json.loads(os.environ["BENCHMARK_PLACES"])
SQLITE = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
ACCOUNT = "app-jobs@acme.iam.gserviceaccount.com"
LOCKS = {"BACKEND": "cloudrun_jobs.locks.redis.RedisLocks", "OPTIONS": {"url": PLACES["redis"]}}

settings.configure(
    SECRET_KEY="benchmark",
    INSTALLED_APPS=["django.contrib.contenttypes", "cloudrun_jobs", "app"],
    DATABASES={"default": PLACES["postgres"] if WORK in {"postgres", "delay"} else SQLITE},
    CLOUDRUN_JOBS={
        "ENVIRONMENT": "production",
        "PROJECT": "acme",
        "REGION": "asia-northeast1",
        "OPTIONS": {"endpoint": PLACES["endpoint"], "service_account": ACCOUNT, "runs_per_minute": 10_000},
        **({"LOCKS": LOCKS} if WORK == "redis" else {}),
    },
    USE_TZ=True,
)
django.setup()

from django.core.management import call_command  # noqa: E402

call_command("migrate", verbosity=0)


def median(work: Callable[[], object], times: int) -> float:
    """Return the median of so many calls, in seconds."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def locks() -> float:
    from cloudrun_jobs.locks import LockManager

    manager = LockManager(f"benchmark {os.getpid()}")

    def cycle() -> None:
        assert manager.try_lock()
        manager.release_lock(raise_exception=True)

    median(cycle, 200)
    return median(cycle, 1500)


def delay() -> float:
    from app.management.commands.job_0 import Command

    call_command(
        "sync_cloudrun_jobs", image="bench", commands=["job_0"], stdout=io.StringIO(), stderr=io.StringIO()
    )
    send = lambda: Command().delay(partner=7)  # noqa: E731
    median(send, 20)
    return median(send, 150)


def sync() -> float:
    def plan() -> None:
        call_command("sync_cloudrun_schedules", stdout=io.StringIO(), stderr=io.StringIO())

    plan()
    return median(plan, 7)


sys.stdout.write(f"{ {'redis': locks, 'postgres': locks, 'delay': delay, 'sync': sync}[WORK]() }\n")
