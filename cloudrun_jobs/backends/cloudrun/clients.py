"""One client of each service per process."""

from __future__ import annotations

import os
from threading import Lock
from typing import TYPE_CHECKING, Any

import grpc
from google.cloud.run_v2.services.executions import ExecutionsClient
from google.cloud.run_v2.services.executions.transports import ExecutionsGrpcTransport
from google.cloud.run_v2.services.jobs import JobsClient
from google.cloud.run_v2.services.jobs.transports import JobsGrpcTransport

if TYPE_CHECKING:
    from google.cloud.run_v2.services.services import ServicesClient
    from google.cloud.scheduler_v1.services.cloud_scheduler import CloudSchedulerClient
    from google.cloud.tasks_v2.services.cloud_tasks import CloudTasksClient

_clients: dict[tuple[type, str | None], Any] = {}
_inherited: list[dict[tuple[type, str | None], Any]] = []
_lock = Lock()


def jobs(endpoint: str | None) -> JobsClient:
    """Return this process's client of the Jobs service."""
    client: JobsClient = _client(JobsClient, JobsGrpcTransport, endpoint)
    return client


def executions(endpoint: str | None) -> ExecutionsClient:
    """Return this process's client of the Executions service."""
    client: ExecutionsClient = _client(ExecutionsClient, ExecutionsGrpcTransport, endpoint)
    return client


def services(endpoint: str | None) -> ServicesClient:
    """Return this process's client of the Services service."""
    from google.cloud.run_v2.services.services import ServicesClient
    from google.cloud.run_v2.services.services.transports import ServicesGrpcTransport

    client: ServicesClient = _client(ServicesClient, ServicesGrpcTransport, endpoint)
    return client


def scheduler(endpoint: str | None) -> CloudSchedulerClient:
    """Return this process's client of Cloud Scheduler."""
    # Imported when first used: a process that only starts jobs does not use it.
    from google.cloud.scheduler_v1.services.cloud_scheduler import CloudSchedulerClient
    from google.cloud.scheduler_v1.services.cloud_scheduler.transports import CloudSchedulerGrpcTransport

    client: CloudSchedulerClient = _client(CloudSchedulerClient, CloudSchedulerGrpcTransport, endpoint)
    return client


def tasks(endpoint: str | None) -> CloudTasksClient:
    """Return this process's client of Cloud Tasks."""
    from google.cloud.tasks_v2.services.cloud_tasks import CloudTasksClient
    from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport

    client: CloudTasksClient = _client(CloudTasksClient, CloudTasksGrpcTransport, endpoint)
    return client


def _client(kind: type, transport: type, endpoint: str | None) -> Any:
    with _lock:
        if (kind, endpoint) not in _clients:
            _clients[kind, endpoint] = _connect(kind, transport, endpoint)
        return _clients[kind, endpoint]


def _connect(kind: type, transport: type, endpoint: str | None) -> Any:
    if endpoint is None:
        return kind()
    return kind(transport=transport(channel=grpc.insecure_channel(endpoint)))


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
