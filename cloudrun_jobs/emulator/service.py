"""Dispatch every call, from any frontend: check the permission, inject faults, do the work."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudrun_jobs.emulator import value_ranges
from cloudrun_jobs.emulator.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cloudrun_jobs.emulator.faults import Faults
    from cloudrun_jobs.emulator.iam.access import Iam
    from cloudrun_jobs.emulator.project.service_usage import ServiceUsage

ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of an RPC, identified by the bearer token."""

    principal: str = ANONYMOUS


@dataclass(frozen=True, slots=True)
class Route:
    """An HTTP rule: ``{job.name=projects/*/locations/*/jobs/*}`` in the URI sets a field of the request."""

    verb: str
    uri: str
    body: str = ""
    host: str = ""  # Only for requests to this host, or to a regional one of the same service.


@dataclass(frozen=True, slots=True)
class Method:
    """An RPC: its request class, its handler and its HTTP rules."""

    service: str
    rpc: str
    request: Any  # A message class of proto-plus or plain protobuf; `dict` for methods without a gRPC client.
    handle: Callable[[Any, Caller], Any]
    routes: Sequence[Route] = ()
    streams: bool = False  # Over gRPC alone: the handler returns an iterable of responses, which has a `close`.

    @property
    def key(self) -> str:
        """The name used by faults and permissions: ``Jobs.RunJob``."""
        return f"{self.service.rpartition('.')[2]}.{self.rpc}"


class Service:
    def __init__(self, methods: Sequence[Method], faults: Faults, iam: Iam, apis: ServiceUsage) -> None:
        self.methods: Mapping[str, Method] = {method.key: method for method in methods}
        self._faults = faults
        self._iam = iam
        self._apis = apis
        self._closing = threading.Event()
        self._calls_lock = threading.Lock()
        self.calls: Counter[str] = Counter()
        faults.methods = frozenset(self.methods)

    def call(self, key: str, request: Any, caller: Caller) -> Any:
        with self._calls_lock:
            self.calls[key] += 1
        self._iam.authenticate(caller.principal)
        if not isinstance(request, dict):
            value_ranges.check(raw(request))
        self._apis.check(self.methods[key], request)
        self._iam.check(key, request, caller.principal)
        self._faults.raise_before(key)
        delay = self._faults.take_delay(key)
        response = self.methods[key].handle(request, caller)
        if delay:
            self._closing.wait(delay)
        try:
            self._faults.raise_after(key)
        except ServiceError:
            if self.methods[key].streams:
                response.close()
            raise
        return response

    def close(self) -> None:
        """Release the calls that a fault delays."""
        self._closing.set()


def raw(message: Any) -> Any:
    """Return the protobuf message inside a proto-plus message, or the message itself."""
    return type(message).pb(message) if hasattr(type(message), "pb") else message


def raw_class(message_class: Any) -> Any:
    return message_class.pb() if hasattr(message_class, "pb") else message_class
