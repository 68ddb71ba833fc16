"""Long-running operations: the state of a request that is still in progress."""

from __future__ import annotations

import time
import uuid
from typing import Any

from google.longrunning import operations_pb2
from google.protobuf import empty_pb2

from cloudrun_jobs.emulator import names
from cloudrun_jobs.emulator.engine.store import Record, Store, paginate, validated
from cloudrun_jobs.emulator.errors import not_found

MAX_WAIT = 600.0  # seconds


def new_name(location: names.Location) -> str:
    return location.operation(str(uuid.uuid4()))


def finished(name: str, message: Any) -> operations_pb2.Operation:
    """Return an operation that is already done."""
    operation = operations_pb2.Operation(name=name, done=True)
    pb = type(message).pb(message)
    operation.metadata.Pack(pb)
    operation.response.Pack(pb)
    return operation


def of_execution(record: Record, name: str) -> operations_pb2.Operation:
    """Return an operation on an execution in its current state; its metadata is the execution."""
    operation = operations_pb2.Operation(name=name, done=record.done)
    pb = type(record.execution).pb(record.execution)
    operation.metadata.Pack(pb)
    if record.done and record.error is not None:
        operation.error.CopyFrom(record.error)
    elif record.done:
        operation.response.Pack(pb)
    return operation


class Operations:
    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, request: operations_pb2.GetOperationRequest) -> operations_pb2.Operation:
        with self._store.changed:
            return self._render(request.name)

    def listed(self, request: operations_pb2.ListOperationsRequest) -> operations_pb2.ListOperationsResponse:
        location = str(names.location_of(validated(request.name)))
        with self._store.changed:
            matching = [name for name in self._store.operations if name.startswith(f"{location}/")]
            selected, token = paginate(reversed(matching), request.page_size, request.page_token)
            operations = [self._render(name) for name in selected]
        return operations_pb2.ListOperationsResponse(operations=operations, next_page_token=token)

    def wait(self, request: operations_pb2.WaitOperationRequest) -> operations_pb2.Operation:
        """Return the operation when it is done, or unfinished after the requested timeout."""
        timeout = request.timeout.ToNanoseconds() / 1e9 if request.HasField("timeout") else MAX_WAIT
        deadline = time.monotonic() + min(timeout, MAX_WAIT)
        with self._store.changed:
            while not (operation := self._render(request.name)).done:
                remaining = deadline - time.monotonic()
                if remaining <= 0 or self._store.closed:
                    break
                self._store.changed.wait(remaining)
            return operation

    def delete(self, request: operations_pb2.DeleteOperationRequest) -> Any:
        """Delete the operation. Its work continues."""
        with self._store.changed:
            self._render(request.name)
            del self._store.operations[request.name]
        return empty_pb2.Empty()

    def _render(self, name: str) -> operations_pb2.Operation:
        entry = self._store.operations.get(validated(name, "operations"))
        if entry is None:
            raise not_found("OPERATION", names.short(name), names.location_of(name))
        return of_execution(entry, name) if isinstance(entry, Record) else entry
