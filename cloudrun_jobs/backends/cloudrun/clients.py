"""One client of each service per process, imported and connected when first used."""

from __future__ import annotations

import os
from importlib import import_module
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

import grpc
from google.auth.exceptions import GoogleAuthError

from cloudrun_jobs.backends.cloudrun.errors import LOGIN_HINT
from cloudrun_jobs.backends.cloudrun.server import Server
from cloudrun_jobs.exceptions import AccessDenied, sentence

if TYPE_CHECKING:
    from google.cloud.logging_v2.services.logging_service_v2 import LoggingServiceV2Client
    from google.cloud.run_v2.services.executions import ExecutionsClient
    from google.cloud.run_v2.services.jobs import JobsClient
    from google.cloud.run_v2.services.services import ServicesClient
    from google.cloud.scheduler_v1.services.cloud_scheduler import CloudSchedulerClient
    from google.cloud.tasks_v2.services.cloud_tasks import CloudTasksClient

# Without the proxy of the environment, and soon connected to a server that was restarted.
LOOPBACK_CHANNEL = [("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 1000)]

_clients: dict[tuple[str, Server], Any] = {}
_inherited: list[dict[tuple[str, Server], Any]] = []
_lock = Lock()


def jobs(server: Server) -> JobsClient:
    return cast("JobsClient", _client("run_v2.services.jobs", "Jobs", server))


def executions(server: Server) -> ExecutionsClient:
    return cast("ExecutionsClient", _client("run_v2.services.executions", "Executions", server))


def services(server: Server) -> ServicesClient:
    return cast("ServicesClient", _client("run_v2.services.services", "Services", server))


def scheduler(server: Server) -> CloudSchedulerClient:
    client = _client("scheduler_v1.services.cloud_scheduler", "CloudScheduler", server)
    return cast("CloudSchedulerClient", client)


def logging(server: Server) -> LoggingServiceV2Client:
    client = _client("logging_v2.services.logging_service_v2", "LoggingServiceV2", server)
    return cast("LoggingServiceV2Client", client)


def tasks(server: Server) -> CloudTasksClient:
    return cast("CloudTasksClient", _client("tasks_v2.services.cloud_tasks", "CloudTasks", server))


def _client(module: str, service: str, server: Server) -> Any:
    with _lock:
        if (service, server) not in _clients:
            _clients[service, server] = _connect(module, service, server)
        return _clients[service, server]


def _connect(module: str, service: str, server: Server) -> Any:
    client = getattr(import_module(f"google.cloud.{module}"), f"{service}Client")
    if server.endpoint is None:
        try:
            return client()
        except GoogleAuthError as error:
            message = f"Google Cloud: no valid credentials. {sentence(str(error))}"
            raise AccessDenied(message, hint=LOGIN_HINT) from error
    channel = grpc.insecure_channel(server.endpoint, LOOPBACK_CHANNEL)
    if server.access_token is not None:
        channel = grpc.intercept_channel(channel, _Authorization(server.access_token))
    return client(transport=client.get_transport_class("grpc")(channel=channel))


class _Authorization(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    """Sends an access token without encryption, which grpc's own credentials refuse."""

    def __init__(self, access_token: str) -> None:
        self._metadata = ("authorization", f"Bearer {access_token}")

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(_WithMetadata(details, [*(details.metadata or ()), self._metadata]), request)


class _WithMetadata(grpc.ClientCallDetails):  # type: ignore[misc]
    """The details of a call with other metadata."""

    def __init__(self, details: Any, metadata: list[tuple[str, str]]) -> None:
        for name in ("method", "timeout", "credentials", "wait_for_ready", "compression"):
            setattr(self, name, getattr(details, name))
        self.metadata = metadata


def _set_aside_inherited() -> None:
    """In a forked child, set the parent's clients aside without closing them.

    A call on an inherited channel hangs beyond its timeout if another thread of the parent was in a call at the
    fork. Closing or collecting the channel may hang as well, so the child keeps it.
    """
    global _lock
    _inherited.append(dict(_clients))
    _clients.clear()
    _lock = Lock()


os.register_at_fork(after_in_child=_set_aside_inherited)
