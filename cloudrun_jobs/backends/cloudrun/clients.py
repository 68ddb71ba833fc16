"""One client of each service per process, imported and connected when first used."""

from __future__ import annotations

import os
from importlib import import_module
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

import grpc

if TYPE_CHECKING:
    from google.cloud.run_v2.services.executions import ExecutionsClient
    from google.cloud.run_v2.services.jobs import JobsClient
    from google.cloud.run_v2.services.services import ServicesClient
    from google.cloud.scheduler_v1.services.cloud_scheduler import CloudSchedulerClient
    from google.cloud.tasks_v2.services.cloud_tasks import CloudTasksClient

# Without the proxy of the environment, and soon connected to a server that was restarted.
LOOPBACK_CHANNEL = [("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 1000)]

_clients: dict[tuple[str, str | None], Any] = {}
_inherited: list[dict[tuple[str, str | None], Any]] = []
_lock = Lock()


def jobs(endpoint: str | None) -> JobsClient:
    return cast("JobsClient", _client("run_v2.services.jobs", "Jobs", endpoint))


def executions(endpoint: str | None) -> ExecutionsClient:
    return cast("ExecutionsClient", _client("run_v2.services.executions", "Executions", endpoint))


def services(endpoint: str | None) -> ServicesClient:
    return cast("ServicesClient", _client("run_v2.services.services", "Services", endpoint))


def scheduler(endpoint: str | None) -> CloudSchedulerClient:
    client = _client("scheduler_v1.services.cloud_scheduler", "CloudScheduler", endpoint)
    return cast("CloudSchedulerClient", client)


def tasks(endpoint: str | None) -> CloudTasksClient:
    return cast("CloudTasksClient", _client("tasks_v2.services.cloud_tasks", "CloudTasks", endpoint))


def _client(module: str, service: str, endpoint: str | None) -> Any:
    with _lock:
        if (service, endpoint) not in _clients:
            _clients[service, endpoint] = _connect(module, service, endpoint)
        return _clients[service, endpoint]


def _connect(module: str, service: str, endpoint: str | None) -> Any:
    client = getattr(import_module(f"google.cloud.{module}"), f"{service}Client")
    if endpoint is None:
        return client()
    transport = client.get_transport_class("grpc")
    return client(transport=transport(channel=grpc.insecure_channel(endpoint, LOOPBACK_CHANNEL)))


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
