"""One process of the lock benchmark, configured by the environment variable BENCHMARK."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

CONFIG = json.loads(os.environ["BENCHMARK"])
KEY = "benchmark"


def configure() -> None:
    from django.conf import settings

    system, places = CONFIG["system"], CONFIG["places"]
    if system == "mariadb":
        from tests.servers import sql

        sql.mariadb_settings(0)
    sqlite = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    keeper = (
        ("redis.RedisLocks", {"url": places["redis"]}) if "redis" in system else ("database.DatabaseLocks", {})
    )
    settings.configure(
        SECRET_KEY="benchmark",
        INSTALLED_APPS=["cloudrun_jobs", "tests.jobs"],
        DATABASES={"default": places.get(system) if system in {"postgres", "mariadb"} else sqlite},
        CLOUDRUN_JOBS={
            "ENVIRONMENT": "staging",
            "LOCKS": {"BACKEND": f"cloudrun_jobs.locks.{keeper[0]}", "OPTIONS": keeper[1]},
        },
        USE_TZ=True,
    )
    import django

    django.setup()


def lock_functions(key: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return a function that tries to acquire the lock, and one that releases it."""
    if CONFIG["system"] == "redis-py":
        from redis import Redis

        lock = Redis.from_url(CONFIG["places"]["redis"]).lock(key, timeout=120)
        return lambda: lock.acquire(blocking=False), lock.release
    from cloudrun_jobs.locks import LockManager

    manager = LockManager(key)
    return manager.try_lock, lambda: manager.release_lock(raise_exception=True)


def floor() -> dict[str, Any]:
    """Send the server two empty requests: the lower bound for any lock."""
    request, times, ends = empty_request(), [], time.perf_counter() + CONFIG["seconds"]
    while (began := time.perf_counter()) < ends:
        request()
        request()
        times.append(time.perf_counter() - began)
    return {"p50": statistics.median(times)}


def empty_request() -> Callable[[], object]:
    """Return a request that costs the server nothing, over the same client as the locks."""
    if "redis" in CONFIG["system"]:
        from redis import Redis

        client = Redis.from_url(CONFIG["places"]["redis"])
        return lambda: client.eval("return 1", 0)
    from django.db import connection

    cursor = connection.cursor()
    return lambda: cursor.execute("SELECT 1")


def cycle() -> dict[str, Any]:
    """Acquire and release without contention."""
    acquire, release = lock_functions(f"{KEY} {os.getpid()}")
    times, ends = [], time.perf_counter() + CONFIG["seconds"]
    while (began := time.perf_counter()) < ends:
        assert acquire()
        release()
        times.append(time.perf_counter() - began)
    return {"p50": statistics.median(times)}


def contend() -> dict[str, Any]:
    """Compete for one lock; the winner holds it for 20 ms."""
    acquire, release = lock_functions(KEY)
    if acquire():
        release()  # Connected.
    print("connected", flush=True)
    time.sleep(max(0, float(input()) - time.time()))
    refused, held, ends = 0, [], time.monotonic() + CONFIG["seconds"]
    while time.monotonic() < ends:
        if not acquire():
            refused += 1
            continue
        began = time.monotonic()
        time.sleep(0.02)
        held.append([began, time.monotonic()])
        release()
    return {"tries": refused / CONFIG["seconds"], "held": held}


def job() -> dict[str, Any]:
    """Run a job that does nothing, with its locks and without."""
    from django.core.management import call_command

    from cloudrun_jobs.locks import current
    from tests.jobs.management.commands import echo

    if CONFIG["system"] == "redis":
        migrate()  # Its records are in an SQLite of this process's own.
    backend, operations = current(), 0

    def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            nonlocal operations
            operations += 1
            return operation(*args)

        return call

    def run() -> float:
        began = time.perf_counter()
        for _ in range(20):
            call_command("echo")
        return (time.perf_counter() - began) / 20 * 1000

    run()
    with_locks = run()
    for name in ("acquire", "renew", "release"):
        setattr(backend, name, counted(getattr(backend, name)))
    call_command("echo")
    echo.Command.overlap, echo.Command.parallelism = "allow", None
    return {"with": with_locks, "without": run(), "operations": operations}


def migrate() -> dict[str, Any]:
    from django.core.management import call_command

    call_command("migrate", "cloudrun_jobs", verbosity=0)
    return {}


if __name__ == "__main__":
    configure()
    print(
        json.dumps(
            {"floor": floor, "cycle": cycle, "contend": contend, "job": job, "migrate": migrate}[CONFIG["work"]]()
        )
    )
