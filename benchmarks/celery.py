"""Measure the Celery backend against bare Celery: the send, the start of a run, and 1 000 empty runs.

Both sides use the same Redis, the same workers and, for the records, PostgreSQL, in turn.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(works: list[str]) -> None:
    from tests.servers import redis, sql

    broker, database = redis.start(redis.redis_program()), sql.postgres()
    try:
        os.environ["BENCHMARK_BROKER"] = redis.url(broker)
        os.environ["BENCHMARK_DATABASE"] = json.dumps(sql.postgres_settings(database.port))
        _run("prepare")
        works = works or ["send", "start", "drain"]
        if "send" in works:
            _run("send")
        with _worker():
            for work in [work for work in works if work != "send"]:
                _run(work)
    finally:
        broker.stop()
        database.stop()


@contextmanager
def _worker() -> Iterator[None]:
    options = ["--pool=prefork", "--concurrency=4", "--prefetch-multiplier=1", "--loglevel=WARNING"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.celery_app", "worker", *options, *quiet]
    with subprocess.Popen(command, cwd=ROOT) as worker:
        try:
            yield
        finally:
            worker.terminate()


def _run(work: str) -> None:
    subprocess.run([sys.executable, "-m", "benchmarks.celery_worker", work], cwd=ROOT, check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
