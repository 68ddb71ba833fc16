"""A gRPC server that stands in for Cloud Run and Cloud Scheduler: it answers as a test configures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any

import grpc
from google.cloud import run_v2, scheduler_v1
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2

SERVICE = "google.cloud.run.v2"


class CloudRun:
    """The recorded requests and the answers. An error is (code, message), and replaces an answer."""

    def __init__(self) -> None:
        self.requests: list[run_v2.RunJobRequest] = []
        self.deadlines: list[float] = []
        self.peers: list[str] = []  # The connection of each request.
        self.cancelled: list[str] = []
        self.execution = run_v2.Execution(task_count=1)
        self.errors: list[tuple[grpc.StatusCode, str]] = []
        self.started: list[run_v2.Execution] = []  # The answer of ListExecutions.
        self.errors_after: list[tuple[grpc.StatusCode, str]] = []  # Of a RunJob that took effect.
        self.errors_of_searches: list[tuple[grpc.StatusCode, str]] = []
        self.polls = 0
        self.searches = 0
        self.hold: Event | None = None  # The first RunJob is answered when it is set.
        self.scheduler_job = scheduler_v1.Job()  # The answer of CreateJob and GetJob of Cloud Scheduler.
        self.unreserved: list[str] = []
        self.errors_of_deletions: list[tuple[grpc.StatusCode, str]] = []
        self.hold_deletions: Event | None = None  # DeleteJob is answered when it is set.
        self.on_request: Callable[[], object] = bool
        self.on_cancel: Callable[[], object] = bool
        self.stop: Callable[[], object] = bool
        self.endpoint = ""

    def run_job(self, request: run_v2.RunJobRequest, context: grpc.ServicerContext) -> operations_pb2.Operation:
        self.requests.append(request)
        self.deadlines.append(context.time_remaining())
        self.peers.append(context.peer())
        self.on_request()
        if self.hold is not None and len(self.requests) == 1:
            self.hold.wait(60)
        self._refuse(context)
        job = request.name.rpartition("/")[2]
        number = "abcde" if len(self.requests) == 1 else f"{len(self.requests):05}"
        self.execution.name = f"{request.name}/executions/{job}-{number}"
        self._keep(request)
        self._refuse(context, self.errors_after)
        operation = operations_pb2.Operation(name="projects/p/locations/r/operations/1")
        operation.metadata.Pack(run_v2.Execution.pb(self.execution))
        return operation

    def get_execution(self, request: Any, context: grpc.ServicerContext) -> run_v2.Execution:
        self.polls += 1
        self.deadlines.append(context.time_remaining())
        self._refuse(context)
        return self.execution

    def cancel_execution(self, request: Any, context: grpc.ServicerContext) -> operations_pb2.Operation:
        self.deadlines.append(context.time_remaining())
        self._refuse(context)
        self.cancelled.append(request.name)
        self.on_cancel()
        return operations_pb2.Operation(name="projects/p/locations/r/operations/2")

    def list_executions(self, request: Any, context: grpc.ServicerContext) -> run_v2.ListExecutionsResponse:
        self.searches += 1
        self._refuse(context, self.errors_of_searches)
        return run_v2.ListExecutionsResponse(executions=self.started)

    def get_scheduler_job(self, request: Any, context: grpc.ServicerContext) -> scheduler_v1.Job:
        return self.scheduler_job

    def delete_scheduler_job(self, request: Any, context: grpc.ServicerContext) -> empty_pb2.Empty:
        self.unreserved.append(request.name.rpartition("/")[2])
        if self.hold_deletions is not None:
            self.hold_deletions.wait(60)
        self._refuse(context, self.errors_of_deletions)
        return empty_pb2.Empty()

    def _keep(self, request: run_v2.RunJobRequest) -> None:
        """Add the execution to the answer of ListExecutions, with the variables of its request."""
        env = request.overrides.container_overrides[0].env
        template = run_v2.TaskTemplate(containers=[run_v2.Container(env=env)])
        self.started.append(run_v2.Execution(name=self.execution.name, task_count=1, template=template))

    def _refuse(
        self, context: grpc.ServicerContext, errors: list[tuple[grpc.StatusCode, str]] | None = None
    ) -> None:
        if errors := self.errors if errors is None else errors:
            context.abort(*errors.pop(0))


@contextmanager
def serve(address: str = "127.0.0.1:0") -> Iterator[CloudRun]:
    """Run the server on a port of the loopback interface, by default a free one."""
    cloud_run = CloudRun()
    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers(
        [
            _service("Jobs", RunJob=(cloud_run.run_job, run_v2.RunJobRequest)),
            _service(
                "Executions",
                GetExecution=(cloud_run.get_execution, run_v2.GetExecutionRequest),
                ListExecutions=(cloud_run.list_executions, run_v2.ListExecutionsRequest),
                CancelExecution=(cloud_run.cancel_execution, run_v2.CancelExecutionRequest),
            ),
            _service(
                "CloudScheduler",
                package="google.cloud.scheduler.v1",
                CreateJob=(cloud_run.get_scheduler_job, scheduler_v1.CreateJobRequest),
                GetJob=(cloud_run.get_scheduler_job, scheduler_v1.GetJobRequest),
                DeleteJob=(cloud_run.delete_scheduler_job, scheduler_v1.DeleteJobRequest),
            ),
        ]
    )
    cloud_run.endpoint = f"127.0.0.1:{server.add_insecure_port(address)}"
    cloud_run.stop = lambda: server.stop(None)
    server.start()
    try:
        yield cloud_run
    finally:
        server.stop(None)


def _service(
    name: str, *, package: str = SERVICE, **methods: tuple[Callable[..., Any], Any]
) -> grpc.GenericRpcHandler:
    handlers = {
        method: grpc.unary_unary_rpc_method_handler(
            call, request_deserializer=message.deserialize, response_serializer=_serialise
        )
        for method, (call, message) in methods.items()
    }
    return grpc.method_handlers_generic_handler(f"{package}.{name}", handlers)


def _serialise(message: Any) -> bytes:
    is_raw = isinstance(message, operations_pb2.Operation | empty_pb2.Empty)
    raw = message if is_raw else type(message).pb(message)
    return bytes(raw.SerializeToString())
