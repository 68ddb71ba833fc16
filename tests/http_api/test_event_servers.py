"""Event streams of gunicorn and uvicorn, with PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from django.db import connections
from pytest_django import Settings

from cloudrun_jobs.models import JobRun, TaskRun
from cloudrun_jobs.models.functions import Now
from tests.http_api import live
from tests.http_api.sse import Client
from tests.servers.process import free_port
from tests.servers.proxy import FaultProxy
from tests.servers.routing import records_in
from tests.waiting import wait_for


class WebServer:
    """A server process, which reaches the database through a proxy."""

    def __init__(self, name: str, database: dict[str, Any]) -> None:
        self.name, self.port = name, free_port()
        self.clients: list[Client] = []
        self.proxy = FaultProxy(int(database["PORT"]))
        database = {**database, "PORT": str(self.proxy.port), "OPTIONS": {"application_name": name}}
        self.process = live.start(name, self.port, database, grace=1)

    def follow(self, run: JobRun, **headers: str) -> Client:
        path = f"/cloudrun_jobs/jobs/{run.pk}/events/"
        client = Client(self.port, path, {"x-token": "the token", "Accept-Encoding": "gzip, br", **headers})
        self.clients.append(client)
        return client

    def close_clients(self) -> None:
        for client in self.clients:
            client.close()
        self.clients.clear()

    def database_connections(self) -> int:
        with connections["postgres"].cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [self.name])
            return int(cursor.fetchone()[0])

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.proxy.close()


@pytest.fixture(scope="module")
def servers(postgres: str) -> Iterator[dict[str, WebServer]]:
    """Both servers, started at once."""
    wanted = ("ENGINE", "NAME", "USER", "HOST", "PORT")
    database = {name: connections.settings[postgres][name] for name in wanted}
    servers = {name: WebServer(name, database) for name in live.SERVERS}
    yield servers
    for server in servers.values():
        server.stop()


@pytest.fixture(autouse=True)
def _records(postgres: str, settings: Settings, django_db_blocker: Any) -> Iterator[None]:
    """Commit what tests write."""
    with records_in(postgres, settings, django_db_blocker):
        yield


@pytest.fixture
def gunicorn(servers: dict[str, WebServer]) -> Iterator[WebServer]:
    yield from ready(servers["gunicorn"])


@pytest.fixture
def uvicorn(servers: dict[str, WebServer]) -> Iterator[WebServer]:
    yield from ready(servers["uvicorn"])


@pytest.fixture(params=live.SERVERS)
def server(request: pytest.FixtureRequest, servers: dict[str, WebServer]) -> Iterator[WebServer]:
    yield from ready(servers[request.param])


def ready(server: WebServer) -> Iterator[WebServer]:
    """Yield the server once it is up, and without streams of other tests."""
    wait_for(lambda: live.listens(server.port, server.process))
    wait_for(lambda: server.database_connections() == 0)
    yield server
    server.close_clients()
    JobRun.objects.all().delete()  # Ends the streams whose server has not noticed.


def new_run() -> JobRun:
    run: JobRun = JobRun.objects.create(command="echo", environment="test", trigger="delay", status="sent")
    return run


def change(run: JobRun, **values: Any) -> None:
    JobRun.objects.filter(pk=run.pk).update(**values)


def test_events_arrive_one_by_one(server: WebServer) -> None:
    """Each event arrives before the next one happens, even if the client accepts compression."""
    run = new_run()
    client = server.follow(run)
    assert client.response.headers["Content-Type"] == "text/event-stream"
    assert client.response.headers["Content-Encoding"] is None
    seen = [client.next()]
    change(run, status="running", started_at=Now())
    seen.append(client.next())
    task = TaskRun.objects.create(run=run, index=0, worker=uuid4(), progress_done=1, progress_text="東京\nnext")
    seen.append(client.next())
    TaskRun.objects.filter(pk=task.pk).update(progress_done=2)
    seen.append(client.next())
    change(run, status="succeeded", finished_at=Now(), result={"rows": 3})
    seen += client.rest()

    names = [message.name for message in seen]
    assert names == ["status", "status", "progress", "progress", "status", "end"]
    assert [message.data["status"] for message in seen if message.name == "status"] == [
        "sent",
        "running",
        "succeeded",
    ]
    assert seen[2].data == {"done": 1, "total": None, "text": "東京\nnext"}
    assert (seen[-1].data["result"], seen[-1].data["progress"]["done"]) == ({"rows": 3}, 2)

    resumed = server.follow(run, **{"Last-Event-ID": seen[3].id})
    assert resumed.rest() == seen[4:]
    assert server.follow(run, **{"Last-Event-ID": seen[-1].id}).response.status == 204


def test_gunicorn_has_two_streams(gunicorn: WebServer) -> None:
    """The third client polls. A closed stream is freed when the next event cannot be sent."""
    run = new_run()
    streams = [gunicorn.follow(run) for _ in range(2)]
    for stream in streams:
        assert stream.next().name == "status"
    assert [message.name for message in gunicorn.follow(run).rest()] == ["status", "retry"]

    streams[0].close()

    def has_room() -> bool:
        change(run, reason=str(uuid4()))
        client = gunicorn.follow(run)
        assert client.next().name == "status"
        change(run, reason=str(uuid4()))
        return client.next().name == "status"

    wait_for(has_room)


def test_uvicorn_needs_one_connection_for_all_streams(uvicorn: WebServer) -> None:
    """All streams share the poller's connection, which is closed when the last client has disconnected."""
    runs = [new_run() for _ in range(12)]
    streams = [uvicorn.follow(run) for run in runs]
    for stream in streams:
        assert stream.next().data["status"] == "sent"
    wait_for(lambda: uvicorn.database_connections() == 1)
    JobRun.objects.update(status="running")

    assert {stream.next().data["status"] for stream in streams} == {"running"}

    assert uvicorn.database_connections() == 1
    for stream in streams:
        stream.close()
    wait_for(lambda: uvicorn.database_connections() == 0)


def test_stream_survives_an_outage_of_the_database(server: WebServer) -> None:
    """The stream continues, and sends what changed in the meantime."""
    run = new_run()
    client = server.follow(run)
    client.next()
    change(run, reason="known")
    assert client.next().data["reason"] == "known"
    server.proxy.set_away(True)
    wait_for(lambda: server.database_connections() == 0)
    change(run, status="running")
    server.proxy.set_away(False)

    assert client.next().data["status"] == "running"

    JobRun.objects.all().delete()
    assert [(message.name, message.data["status"]) for message in client.rest()] == [("end", None)]
