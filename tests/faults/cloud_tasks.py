"""A fake Cloud Tasks on a gRPC server, which delivers a task when a test says so.

All other calls are forwarded to an emulator, so that one endpoint serves both.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import grpc
from google.cloud import tasks_v2
from google.protobuf.empty_pb2 import Empty

from cloudrun_jobs.emulator import Emulator

SERVICE = "/google.cloud.tasks.v2.CloudTasks/"
QUEUE = "projects/acme/locations/europe-west4/queues/reserved"
MAX_SCHEDULE_DELAY = timedelta(hours=720)


class CloudTasks(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no annotations
    """The tasks of one queue. The names of earlier tasks stay taken."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.tasks: dict[str, tasks_v2.Task] = {}
        self.calls: list[str] = []
        self.errors: list[tuple[grpc.StatusCode, str]] = []  # Each is returned once, without an effect.
        self.errors_after: list[tuple[grpc.StatusCode, str]] = []  # Returned once, after the task was created.
        self.endpoint = ""
        self._taken: set[str] = set()
        self._channel = grpc.insecure_channel(emulator.grpc)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        if details.method == f"{SERVICE}CreateTask":
            return _handler(self._create, tasks_v2.CreateTaskRequest)
        if details.method == f"{SERVICE}DeleteTask":
            return _handler(self._delete, tasks_v2.DeleteTaskRequest)
        metadata = [(key, value) for key, value in details.invocation_metadata if not key.startswith("grpc")]
        call = self._channel.unary_unary(details.method)
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: _forward(call, request, metadata, context)
        )

    def fire(self, name: str) -> None:
        """Deliver a task and delete it."""
        target = self.tasks[name].http_request
        path = urlsplit(target.url).path
        headers = {**target.headers, "Authorization": "Bearer of-the-account"}
        request = urllib.request.Request(f"{self.emulator.http}{path}", bytes(target.body), headers, method="POST")
        with urllib.request.urlopen(request, timeout=30) as response:
            assert response.status == 200
        self.tasks.pop(name, None)

    def _create(self, request: tasks_v2.CreateTaskRequest, context: grpc.ServicerContext) -> tasks_v2.Task:
        self.calls.append("CreateTask")
        _fail(self.errors, context)
        task = request.task
        if request.parent != QUEUE or task.name.rpartition("/tasks/")[0] != QUEUE:
            context.abort(grpc.StatusCode.NOT_FOUND, "Requested entity was not found.")
        if task.name in self._taken:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, "The task cannot be created because it exists already.")
        if task.schedule_time - datetime.now(UTC) > MAX_SCHEDULE_DELAY:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, "Schedule time must be no more than 720h in the future."
            )
        self.tasks[task.name] = task
        self._taken.add(task.name)
        _fail(self.errors_after, context)
        return task

    def _delete(self, request: tasks_v2.DeleteTaskRequest, context: grpc.ServicerContext) -> Empty:
        self.calls.append("DeleteTask")
        _fail(self.errors, context)
        if self.tasks.pop(request.name, None) is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "The task is unknown.")
        return Empty()


@contextmanager
def serve(emulator: Emulator) -> Iterator[CloudTasks]:
    """Run the server on a free port."""
    tasks = CloudTasks(emulator)
    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers([tasks])
    tasks.endpoint = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield tasks
    finally:
        server.stop(None)


def _handler(call: Callable[..., Any], message: Any) -> grpc.RpcMethodHandler:
    return grpc.unary_unary_rpc_method_handler(
        call, request_deserializer=message.deserialize, response_serializer=_serialise
    )


def _serialise(message: Any) -> bytes:
    raw = message if isinstance(message, Empty) else type(message).pb(message)
    return bytes(raw.SerializeToString())


def _fail(errors: list[tuple[grpc.StatusCode, str]], context: grpc.ServicerContext) -> None:
    if errors:
        context.abort(*errors.pop(0))


def _forward(call: Any, request: bytes, metadata: list[tuple[str, str]], context: grpc.ServicerContext) -> bytes:
    try:
        response: bytes = call(request, metadata=metadata, timeout=30)
    except grpc.RpcError as error:
        context.abort(error.code(), error.details())
        raise
    return response
