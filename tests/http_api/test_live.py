"""A live server whose database stops: gunicorn and PostgreSQL as processes."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from tests.http_api.conftest import configured, secret
from tests.http_api.live import serve
from tests.servers import sql
from tests.servers.fixtures import add_database
from tests.servers.process import Server
from tests.waiting import wait_for

pytestmark = pytest.mark.faults


@pytest.fixture(autouse=True)
def _records(django_db_setup: None, django_db_blocker: Any) -> Any:
    with django_db_blocker.unblock():
        yield


@pytest.fixture
def postgres_of_its_own() -> Any:
    server = sql.postgres()
    add_database("stopped", sql.postgres_settings(server.port))
    yield server
    del connections["stopped"], connections.settings["stopped"]
    server.stop()


def get(url: str, *, method: str = "GET") -> tuple[int, bytes, float]:
    """Return the status, the body and the seconds that the answer took."""
    request = urllib.request.Request(url, headers={"x-token": secret("reader")}, method=method)
    start = time.monotonic()
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read(), time.monotonic() - start
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), time.monotonic() - start


def send(server: Server, number: signal.Signals) -> None:
    """Send a signal to PostgreSQL and its processes."""
    pid = server.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for each in (pid, *map(int, children)):
        os.kill(each, number)


def test_health_answers_while_the_database_is_stopped(postgres_of_its_own: Server) -> None:
    """A stopped database accepts connections and does not answer: health does, and recovers with the database."""
    databases = {"default": sql.postgres_settings(postgres_of_its_own.port)}
    with serve(DATABASES=databases, CLOUDRUN_JOBS=configured()) as address:
        url = f"{address}/cloudrun_jobs/health/"
        assert get(url)[:2] == (200, b'{"status": "ok", "findings": []}')
        assert get(url, method="HEAD")[:2] == (200, b"")
        send(postgres_of_its_own, signal.SIGSTOP)
        try:
            wait_for(lambda: get(url)[0] == 503)  # Earlier findings are kept for a while.
            answers = [get(url) for _ in range(3)]
        finally:
            send(postgres_of_its_own, signal.SIGCONT)

        assert [status for status, _, _ in answers] == [503] * 3
        assert {found["code"] for _, body, _ in answers for found in json.loads(body)["findings"]} == {
            "database_unreachable"
        }
        assert max(seconds for _, _, seconds in answers) < 1  # The first caller has waited.
        wait_for(lambda: get(url)[0] == 200)
