"""Health while servers are down or do not answer."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connections

from cloudrun_jobs.runs import health
from tests.http_api.conftest import configured
from tests.servers import sql
from tests.servers.process import free_port
from tests.servers.routing import To

LIMIT = 1.5  # seconds; long enough for a healthy server on a loaded machine
REDIS = "cloudrun_jobs.locks.redis.RedisLocks"


@pytest.fixture(autouse=True)
def _records(django_db_setup: None, django_db_blocker: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Query servers in threads, as outside of a transaction, with a short limit."""
    monkeypatch.setattr(health, "_probes", {})
    monkeypatch.setattr(health, "PROBE_LIMIT_SECONDS", LIMIT)
    with django_db_blocker.unblock():
        yield


@pytest.fixture(params=["down", "hanging"])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of a server that refuses connections, or that accepts them and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield free_port() if request.param == "down" else server.getsockname()[1]


@pytest.fixture
def away(settings: Any, port: int) -> Iterator[None]:
    """Keep the records in a PostgreSQL at that port."""
    connections.settings["away"] = {
        **connections.settings["default"],
        **sql.postgres_settings(port),
        "OPTIONS": {},
    }
    settings.DATABASE_ROUTERS = [To("away")]
    yield
    del connections["away"], connections.settings["away"]


@pytest.mark.usefixtures("away")
def test_database_that_does_not_answer_is_a_finding(call: Callable[..., Any]) -> None:
    """The first caller waits for the limit; later ones do not wait while the first connection hangs."""
    start = time.monotonic()

    answers = [call("GET", "health/") for _ in range(20)]

    assert {answer.status_code for answer in answers} == {503}
    assert {found["code"] for answer in answers for found in answer.json()["findings"]} == {"database_unreachable"}
    assert time.monotonic() - start < 10 * LIMIT
    assert "127.0.0.1" not in answers[0].text


@pytest.mark.usefixtures("away")
@pytest.mark.parametrize("port", ["down"], indirect=True)
@pytest.mark.parametrize("path", ["jobs/", "jobs/stats/", "jobs/1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed/"])
def test_other_endpoints_are_unavailable(call: Callable[..., Any], path: str) -> None:
    """The response is an error without a traceback."""
    response = call("GET", path)

    assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")
    assert response["Retry-After"]
    assert "127.0.0.1" not in response.text


def test_lock_server_that_does_not_answer_is_a_finding(call: Callable[..., Any], settings: Any, port: int) -> None:
    """The response is in time, and contains no address."""
    locks = {"BACKEND": REDIS, "OPTIONS": {"url": f"redis://127.0.0.1:{port}"}}
    settings.CLOUDRUN_JOBS = {**configured(), "LOCKS": locks}
    start = time.monotonic()

    response = call("GET", "health/")

    assert [found["code"] for found in response.json()["findings"]] == ["lock_server_unreachable"]
    assert response.status_code == 503
    assert time.monotonic() - start < 3 * LIMIT  # redis-py alone would wait for five seconds, and retry.
    assert "127.0.0.1" not in response.text


def test_probe_that_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Health recovers with the server, even if an earlier connection never returns."""
    recovered = threading.Event()
    monkeypatch.setattr(health, "PROBE_LIMIT_SECONDS", 0.05)

    def hang() -> list[health.Finding]:
        recovered.wait(60)
        return []

    failed = health._started("locks", hang)
    try:
        assert failed.findings(unanswered=health.LOCKS_UNREACHABLE) == [health.LOCKS_UNREACHABLE]
        assert health._started("locks", list) is failed
        failed._deadline -= health.HANG_LIMIT_SECONDS
        monkeypatch.setattr(health, "PROBE_LIMIT_SECONDS", 5)

        assert health._started("locks", list).findings(unanswered=health.LOCKS_UNREACHABLE) == []
    finally:
        recovered.set()
        failed.join()


def test_lock_server_that_answers_is_healthy(
    call: Callable[..., Any], settings: Any, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The findings are kept for a while, and collected again after that."""
    monkeypatch.setattr(health, "PROBE_LIMIT_SECONDS", 30)
    settings.CLOUDRUN_JOBS = {**configured(), "LOCKS": {"BACKEND": REDIS, "OPTIONS": {"url": redis_url}}}

    assert call("GET", "health/").json() == {"status": "ok", "findings": []}
    probe = health._probes["locks"]
    call("GET", "health/")
    assert health._probes["locks"] is probe
    probe._ended_at -= health.CACHE_SECONDS
    call("GET", "health/")
    assert health._probes["locks"] is not probe
