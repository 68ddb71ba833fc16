"""The requests, the worker and the health check of the guide, with Redis: see `example/celery_app.py`."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import copyfile
from typing import Any
from uuid import UUID

import pytest
import time_machine
from celery import Celery
from celery.beat import PersistentScheduler

from cloudrun_jobs.contrib.celery.beat import CronSchedule
from tests.containers.web import get
from tests.example.test_ingest import BODY, PROJECT, RESULT, TOKEN, Curl, curl, ended, serve, start
from tests.servers.process import free_port
from tests.waiting import wait_for

__all__ = ["curl"]

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("ingest on Celery")]  # One worker for all of them.

CELERY = [str(Path(sys.executable).with_name("celery")), "-A", "example.celery_app"]
QUEUES = "ingest,ai_analysis,backtest,market_data,notifications"
WORKER = ["worker", "--loglevel=info", f"--queues={QUEUES}", "--concurrency=4", "--prefetch-multiplier=1"]
RECONCILE = "reconcile-cloudrun-runs-production|* * * * *|UTC"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Path:
    """Return the directory with the database, the logs and the files of beat."""
    home = tmp_path_factory.mktemp("celery")
    copyfile(migrated, home / "example.sqlite3")
    return home


@pytest.fixture(scope="module")
def variables(home: Path, redis_url: str) -> dict[str, str]:
    """Return the environment variables of the web service and of the workers."""
    return {
        "CLOUDRUN_JOBS_ENVIRONMENT": "production",
        "CLOUDRUN_JOBS_PROJECT": "acme",
        "CLOUDRUN_JOBS_REGION": "asia-northeast1",
        "DISABLE_CELERY": "false",
        "DISABLE_REDIS": "false",
        "DJANGO_SETTINGS_MODULE": "example.settings",
        "EXAMPLE_ALLOWED_HOSTS": "127.0.0.1",
        "EXAMPLE_DATABASE": str(home / "example.sqlite3"),
        "EXAMPLE_INGEST_TOKEN": TOKEN,
        "EXAMPLE_SECRET_KEY": "only for tests",
        "REDIS_URL": f"{redis_url.rpartition('/')[0]}/7",
    }


@contextmanager
def celery(home: Path, variables: dict[str, str], name: str, *options: str) -> Iterator[Path]:
    """Run one of Celery's programs while the block runs; yield the path of its log."""
    log, env = home / f"{name}.log", {**os.environ, **variables}
    with (
        log.open("wb") as output,
        subprocess.Popen([*CELERY, *options], cwd=PROJECT, env=env, stdout=output, stderr=output) as process,
    ):
        try:
            yield log
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def worker(home: Path, variables: dict[str, str]) -> Iterator[Path]:
    """Run a worker as the guide does; return the path of its log."""
    with celery(home, variables, "worker", *WORKER) as log:
        wait_for(lambda: b" ready." in log.read_bytes(), 60)
        yield log


@pytest.fixture(scope="module")
def url(home: Path, variables: dict[str, str], worker: Path) -> Iterator[str]:
    """Serve the example; return the server's URL."""
    with serve(home, variables) as url:
        yield url


def test_post_poll_and_read_the_result(curl: Curl) -> None:
    """The web service sends the run to the queue, a worker runs it, and the API shows it."""
    status, answer = start(curl, BODY)
    run = wait_for(lambda: ended(curl(f"/api/v1/ingest/jobs/{answer['job_id']}?wait=25")), 120)
    _, listed = curl("/api/v1/ingest/jobs")
    _, stats = curl("/api/v1/ingest/jobs/stats")

    assert (status, answer) == (202, {"job_id": str(UUID(answer["job_id"])), "status": "queued"})
    assert (run["status"], run["result"], run["backend"], run["queue"]) == (
        "succeeded",
        RESULT,
        "celery",
        "ingest",
    )
    assert answer["job_id"] in [each["id"] for each in listed["runs"]]
    assert stats["counts"]["succeeded"] >= 1


@pytest.fixture
def flower(home: Path, variables: dict[str, str], worker: Path) -> Iterator[str]:
    """Run Flower, and return its URL when it has switched the events of the worker on."""
    port, api = free_port(), {"FLOWER_UNAUTHENTICATED_API": "true"}
    with celery(home, {**variables, **api}, "flower", "flower", "--address=127.0.0.1", f"--port={port}"):
        wait_for(lambda: b"Events of group {task} enabled by remote" in worker.read_bytes(), 60)
        yield f"http://127.0.0.1:{port}"


def test_flower_lists_and_counts_runs(curl: Curl, flower: str) -> None:
    """Flower has the run's id as the id of the task, and metrics for Prometheus."""
    _, answer = start(curl, BODY)
    task = wait_for(lambda: json.loads(get(f"{flower}/api/tasks")[2]).get(answer["job_id"]))
    succeeded = re.compile(
        r'flower_events_total\{task="cloudrun_jobs.run",type="task-succeeded",worker=".+"\} [1-9]'
    )
    metrics = wait_for(lambda: (page := get(f"{flower}/metrics")[2]) and succeeded.search(page) and page)

    assert (task["name"], task["args"]) == ("cloudrun_jobs.run", f"({answer['job_id']!r},)")
    assert re.search(r'flower_worker_online\{worker="celery@.+"\} 1', metrics)


def test_health_check(variables: dict[str, str], worker: Path) -> None:
    """The worker replies to a ping."""
    env = {**os.environ, **variables}
    done = subprocess.run([*CELERY, "inspect", "ping"], cwd=PROJECT, env=env, capture_output=True, text=True)

    assert (done.returncode, "pong" in done.stdout) == (0, True)


def write_file(path: Path, last: datetime) -> None:
    """Write the file of a beat that sent its last tick at that time."""
    app = Celery("tests", broker="memory://", set_as_current=False)
    app.conf.beat_schedule = {
        RECONCILE: {"task": "cloudrun_jobs.tick", "schedule": CronSchedule("* * * * *", "UTC")}
    }
    with time_machine.travel(last, tick=False):
        PersistentScheduler(app, schedule_filename=str(path)).close()


def ticks(home: Path) -> list[tuple[Any, ...]]:
    """Return the status and the due time of each run that beat has started."""
    with closing(sqlite3.connect(home / "example.sqlite3", timeout=30)) as connection:
        sql = "SELECT status, scheduled_for, requested_by FROM cloudrun_jobs_jobrun WHERE schedule IS NOT NULL"
        return connection.execute(sql).fetchall()


def test_two_beats_make_one_run_of_each_tick(home: Path, variables: dict[str, str], worker: Path) -> None:
    """Both send the tick that they have missed; those that are due meanwhile are runs of their own."""
    with ExitStack() as stack:
        for name in ("first", "second"):
            write_file(home / name, datetime.now(UTC) - timedelta(minutes=3))
            options = ("beat", "--loglevel=info", "--schedule", str(home / name))
            stack.enter_context(celery(home, variables, name, *options))
        received = wait_for(lambda: handled(worker) if handled(worker) > 1 else 0, 60)
    found = wait_for(lambda: ended_ticks(home), 60)

    assert 1 <= len(found) == len({due for _, due, _ in found}) < received
    assert {requester for *_, requester in found} == {"celery beat"}


def handled(log: Path) -> int:
    """Return the number of ticks that the worker has recorded."""
    return len(re.findall(rb"Task cloudrun_jobs\.tick\S+ succeeded", log.read_bytes()))


def ended_ticks(home: Path) -> list[tuple[Any, ...]]:
    """Return the runs that beat has started, if all have succeeded."""
    runs = ticks(home)
    return runs if all(status == "succeeded" for status, *_ in runs) else []
