"""The server on this machine that stands in for Google's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import BaseRequestHandler, TCPServer
from threading import Thread
from typing import Any

import grpc
import pytest
from pytest_django import Settings

from cloudrun_jobs import backends
from cloudrun_jobs.backends.cloudrun import clients
from cloudrun_jobs.environ import EMULATOR_VARIABLE
from cloudrun_jobs.exceptions import InvalidSettings, ServiceError, ServiceUnavailable
from cloudrun_jobs.models import JobRun, Status
from tests.backends.server import CloudRun, serve
from tests.backends.test_fork import free_port
from tests.jobs.management.commands import echo

ACCOUNT = "app-jobs@acme.iam.gserviceaccount.com"
CALLS: dict[str, Callable[[], Any]] = {
    "delay": lambda: echo.Command().delay(),
    "reserve": lambda: echo.Command().reserve(3600),
}


@contextmanager
def listen(handler: type[BaseRequestHandler], server_class: type[TCPServer] = TCPServer) -> Iterator[int]:
    """Serve with the handler on a free port of the loopback interface."""
    with server_class(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


class Http(BaseHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


class Impatient(BaseRequestHandler):
    """Accepts the connection and closes it."""


@pytest.fixture
def use_endpoint(settings: Settings, transactional_db: None) -> Callable[[str], None]:
    """Configure the endpoint, with the default `send_deadline` of 20 seconds."""

    def configure(endpoint: str, **options: Any) -> None:
        settings.CLOUDRUN_JOBS = {
            "ENVIRONMENT": "production",
            "PROJECT": "acme",
            "REGION": "asia-northeast1",
            "OPTIONS": {"endpoint": endpoint, "service_account": ACCOUNT, **options},
        }

    return configure


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.0.0.9"])
@pytest.mark.parametrize("call", CALLS)
def test_refused_connection_is_an_error_at_once(use_endpoint: Callable[..., None], host: str, call: str) -> None:
    """Nothing was sent, so the run has failed; the error names the address and how to start the emulator."""
    endpoint = f"{host}:{free_port()}"
    use_endpoint(endpoint)
    before = time.monotonic()

    with pytest.raises(ServiceError) as raised:
        CALLS[call]()

    assert time.monotonic() - before < 5
    assert f": No server listens at {endpoint}. Start `manage.py cloudrun_emulator`" in str(raised.value)
    assert not isinstance(raised.value, ServiceUnavailable)
    assert JobRun.objects.get().status == Status.FAILED


@pytest.mark.parametrize("call", CALLS)
def test_http_port_is_reported(use_endpoint: Callable[..., None], call: str) -> None:
    """The port of an HTTP server is an error at once, which names the mistake."""
    with listen(Http, HTTPServer) as port:
        use_endpoint(f"127.0.0.1:{port}")
        before = time.monotonic()

        with pytest.raises(ServiceError, match=rf"127\.0\.0\.1:{port} speaks HTTP, not gRPC.*gRPC address"):
            CALLS[call]()

    assert time.monotonic() - before < 5


def test_other_server_is_retried(use_endpoint: Callable[..., None]) -> None:
    """A server that accepts connections and closes them may be about to start: the request is repeated."""
    with listen(Impatient) as port:
        use_endpoint(f"127.0.0.1:{port}", send_deadline=1)

        with pytest.raises(ServiceUnavailable):
            echo.Command().delay()


def test_started_server_is_used_at_once(use_endpoint: Callable[..., None]) -> None:
    """A refusal is not remembered: once the server runs, the next request reaches it."""
    with serve() as server:
        endpoint = server.endpoint
    use_endpoint(endpoint)
    with pytest.raises(ServiceError, match="No server listens"):
        echo.Command().delay()

    with serve(endpoint) as server:
        echo.Command().delay()

    assert len(server.requests) == 1


def test_lost_reply_of_a_stopped_server_stays_unclear(use_endpoint: Callable[..., None]) -> None:
    """If the server stops after it got the request, an execution may exist: the run does not fail at once."""
    with serve() as server:
        use_endpoint(server.endpoint, send_deadline=2)
        server.errors_after = [(grpc.StatusCode.UNAVAILABLE, "a message")]
        server.on_request = lambda: Thread(target=server.stop, daemon=True).start()

        with pytest.raises(ServiceUnavailable):
            echo.Command().delay()


def test_what_runs_on_the_emulator_calls_it(
    cloud_run: CloudRun, use_endpoint: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an endpoint in the options, the emulator's variable names it."""
    use_endpoint(endpoint=None)
    monkeypatch.setenv(EMULATOR_VARIABLE, cloud_run.endpoint)

    echo.Command().delay()

    assert len(cloud_run.requests) == 1


def test_an_endpoint_of_the_options_is_used_on_the_emulator(
    cloud_run: CloudRun, use_endpoint: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a server on this machine as well."""
    use_endpoint(cloud_run.endpoint)
    monkeypatch.setenv(EMULATOR_VARIABLE, f"127.0.0.1:{free_port()}")

    echo.Command().delay()

    assert len(cloud_run.requests) == 1


@pytest.mark.parametrize("value", ["run.googleapis.com:443", "10.0.0.1:80", "127.0.0.1", "localhost"])
def test_emulator_variable_must_be_loopback(
    use_endpoint: Callable[..., None], monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """The variable cannot send calls without encryption to another machine."""
    use_endpoint(endpoint=None)
    monkeypatch.setenv(EMULATOR_VARIABLE, value)

    with pytest.raises(InvalidSettings, match=f"{EMULATOR_VARIABLE}: expected 'host:port' of this machine"):
        backends.current()


def test_empty_emulator_variable_is_ignored(
    use_endpoint: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty variable is no endpoint."""
    use_endpoint("127.0.0.1:8491")
    monkeypatch.setenv(EMULATOR_VARIABLE, "")

    assert backends.current().endpoint == "127.0.0.1:8491"  # type: ignore[attr-defined]


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy"])
def test_proxy_is_not_used_for_loopback(
    cloud_run: CloudRun, use_endpoint: Callable[..., None], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """A proxy of the environment does not get the calls to this machine."""
    monkeypatch.setenv(variable, f"http://127.0.0.1:{free_port()}")
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(clients, "_clients", {})  # No channel that is connected.
    use_endpoint(cloud_run.endpoint)

    echo.Command().delay()

    assert len(cloud_run.requests) == 1
