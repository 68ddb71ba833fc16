"""A broker that is unavailable delays the tick of a beat."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any

import pytest
from celery import Celery
from celery.beat import Scheduler
from redis import Redis

from cloudrun_jobs.contrib.celery import beat_schedule
from tests.contrib.recording import ON_QUEUE
from tests.jobs.management.commands import echo
from tests.servers import redis
from tests.servers.process import Server

pytestmark = pytest.mark.faults


@pytest.fixture
def server() -> Iterator[Server]:
    server = redis.start(redis.redis_program())
    yield server
    server.stop()


@pytest.fixture
def scheduler(server: Server, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scheduler]:
    """Return a beat with one schedule, which has sent a tick."""
    settings.CLOUDRUN_JOBS = ON_QUEUE
    monkeypatch.setattr(echo.Command, "schedule", "* * * * *", raising=False)
    app = Celery("tests", broker=redis.url(server), set_as_current=False)
    app.conf.beat_schedule = beat_schedule()
    scheduler = Scheduler(app)
    send_tick(scheduler)
    yield scheduler
    scheduler.close()
    del scheduler, app
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # Kombu leaves the sockets of lost connections open.
        gc.collect()


def send_tick(scheduler: Scheduler) -> None:
    """Send a tick that has been missed."""
    for entry in scheduler.schedule.values():
        entry.last_run_at = datetime.now(UTC) - timedelta(minutes=2)
    scheduler.populate_heap()
    scheduler.tick()


def test_tick_is_sent_when_the_broker_is_back(server: Server, scheduler: Scheduler) -> None:
    """Celery's own retries would end after a second."""
    server.kill()
    beat = Thread(target=send_tick, args=(scheduler,))
    beat.start()
    beat.join(3)
    is_waiting = beat.is_alive()
    server.start()
    beat.join(30)
    with Redis(port=server.port) as client:
        sent = client.llen("ingest")

    assert (is_waiting, beat.is_alive(), sent) == (True, False, 1)
