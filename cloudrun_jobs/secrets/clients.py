"""Create one Secret Manager client per process and endpoint, when it is first used."""

from __future__ import annotations

import logging
import os
from threading import Lock
from typing import TypeAlias

import grpc
from google.cloud.secretmanager_v1.services.secret_manager_service import SecretManagerServiceClient
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import (
    SecretManagerServiceGrpcTransport,
)

Clients: TypeAlias = "dict[str | None, SecretManagerServiceClient]"

# Ignore the proxy of the environment, and reconnect within a second to a restarted server.
LOOPBACK_CHANNEL = [("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 1000)]

# At the level DEBUG, Google's client logs requests and responses, including the values of secrets.
TRANSPORT_LOGGER = logging.getLogger(SecretManagerServiceGrpcTransport.__module__)

_clients: Clients = {}
_inherited: list[Clients] = []
_lock = Lock()


def client(endpoint: str | None) -> SecretManagerServiceClient:
    """Return this process's client for the endpoint; None is Google's service."""
    with _lock:
        if endpoint not in _clients:
            _clients[endpoint] = _connect(endpoint)
        return _clients[endpoint]


def _connect(endpoint: str | None) -> SecretManagerServiceClient:
    TRANSPORT_LOGGER.setLevel(logging.INFO)
    if endpoint is None:
        return SecretManagerServiceClient()
    channel = grpc.insecure_channel(endpoint, LOOPBACK_CHANNEL)
    return SecretManagerServiceClient(transport=SecretManagerServiceGrpcTransport(channel=channel))


def _set_aside_inherited() -> None:
    """In a forked child, set the parent's clients aside: using or closing them may hang."""
    global _lock
    _inherited.append(dict(_clients))
    _clients.clear()
    _lock = Lock()


os.register_at_fork(after_in_child=_set_aside_inherited)
