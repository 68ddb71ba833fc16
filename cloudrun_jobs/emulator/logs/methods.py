"""The methods of Logging: write, list and delete the entries of logs."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from google.api import monitored_resource_pb2  # type: ignore[import-untyped]
from google.cloud.logging_v2.types import (
    DeleteLogRequest,
    ListLogEntriesRequest,
    ListLogEntriesResponse,
    ListLogsRequest,
    ListLogsResponse,
    ListMonitoredResourceDescriptorsRequest,
    ListMonitoredResourceDescriptorsResponse,
    TailLogEntriesRequest,
    WriteLogEntriesRequest,
    WriteLogEntriesResponse,
)
from google.protobuf import empty_pb2

from cloudrun_jobs.emulator.engine.store import paginate
from cloudrun_jobs.emulator.errors import ServiceError, invalid
from cloudrun_jobs.emulator.logs.fields import Entry
from cloudrun_jobs.emulator.logs.filters import MalformedFilter, compile_filter
from cloudrun_jobs.emulator.logs.names import canonical, prefixes
from cloudrun_jobs.emulator.logs.tailing import Tails
from cloudrun_jobs.emulator.service import Method, Route

if TYPE_CHECKING:
    from cloudrun_jobs.emulator.logs.store import LogStore

SERVICE = "google.logging.v2.LoggingServiceV2"
DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
MAX_ENTRY_BYTES = 256 * 1024
MAX_REQUEST_BYTES = 10 * 1024 * 1024
ERRORS_TYPE = "type.googleapis.com/google.logging.v2.WriteLogEntriesPartialErrors"
RESOURCE_LABELS = {
    "cloud_run_job": ("project_id", "job_name", "location"),
    "cloud_run_revision": ("project_id", "service_name", "revision_name", "location", "configuration_name"),
    "cloud_run_worker_pool": ("project_id", "worker_pool_name", "revision_name", "location"),
    "cloud_scheduler_job": ("project_id", "location", "job_id"),
    "global": ("project_id",),
}


def methods(store: LogStore) -> Iterator[Method]:
    """Return the methods, with the HTTP rules of the service: the client library has no REST transport."""
    logging, tails = Logging(store), Tails(store, compiled)
    table: list[tuple[str, Any, Callable[[Any], Any], list[Route]]] = [
        ("WriteLogEntries", WriteLogEntriesRequest, logging.write, [Route("post", "/v2/entries:write", "*")]),
        ("ListLogEntries", ListLogEntriesRequest, logging.list_entries, [Route("post", "/v2/entries:list", "*")]),
        ("ListLogs", ListLogsRequest, logging.list_logs, _routes("get", "parent", "logs")),
        ("DeleteLog", DeleteLogRequest, logging.delete, _routes("delete", "log_name")),
        (
            "ListMonitoredResourceDescriptors",
            ListMonitoredResourceDescriptorsRequest,
            list_resource_descriptors,
            [Route("get", "/v2/monitoredResourceDescriptors")],
        ),
    ]
    for rpc, request, handle, routes in table:
        yield Method(SERVICE, rpc, request, _plain(handle), routes)
    yield Method(SERVICE, "TailLogEntries", TailLogEntriesRequest, _plain(tails.open), streams=True)


class Logging:
    def __init__(self, store: LogStore) -> None:
        self._store = store

    def write(self, request: WriteLogEntriesRequest) -> WriteLogEntriesResponse:
        """Store the entries of a client, with the defaults that the request gives for all of them."""
        pb = WriteLogEntriesRequest.pb(request)
        if pb.ByteSize() > MAX_REQUEST_BYTES:
            raise invalid(f"Request payload size exceeds the limit: {MAX_REQUEST_BYTES} bytes.")
        entries, errors = [], {}
        for index, given in enumerate(pb.entries):
            try:
                entries.append(_merged(given, pb))
            except ServiceError as error:
                errors[index] = error
        if not pb.dry_run and (pb.partial_success or not errors):
            for entry in entries:
                self._store.add(entry)
        if errors:
            raise _write_error(errors, has_written=bool(pb.partial_success and entries))
        return WriteLogEntriesResponse()

    def list_entries(self, request: ListLogEntriesRequest) -> ListLogEntriesResponse:
        matches = compiled(request.filter)
        projects = prefixes(request.resource_names)
        if request.page_size < 0:
            raise invalid("page_size must not be negative.")
        newest_first = _newest_first(request.order_by)
        arguments = _digest([request.filter, request.order_by, *request.resource_names])
        after = _position(request.page_token, arguments)
        # Entries with the same time and id are duplicates, of which the service returns one.
        found = {
            _key(entry): entry
            for entry in self._store.all()
            if entry.log_name.startswith(projects) and matches(entry)
        }
        keys = sorted(found, reverse=newest_first)
        if after is not None:
            keys = [key for key in keys if (key < after if newest_first else key > after)]
        size = min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        token = _token(keys[size - 1], arguments) if size < len(keys) else ""
        return ListLogEntriesResponse(entries=[found[key] for key in keys[:size]], next_page_token=token)

    def list_logs(self, request: ListLogsRequest) -> ListLogsResponse:
        """List the logs that have entries."""
        projects = prefixes([*([request.parent] if request.parent else []), *request.resource_names])
        names = sorted({entry.log_name for entry in self._store.all() if entry.log_name.startswith(projects)})
        page, token = paginate(names, max(0, request.page_size), request.page_token, MAX_PAGE_SIZE)
        return ListLogsResponse(log_names=page, next_page_token=token)

    def delete(self, request: DeleteLogRequest) -> empty_pb2.Empty:
        name = canonical(request.log_name)
        if not self._store.delete(name):
            raise ServiceError("NOT_FOUND", f"Log {name} does not exist")
        return empty_pb2.Empty()


def list_resource_descriptors(request: ListMonitoredResourceDescriptorsRequest) -> Any:
    """List the types of monitored resources whose entries the emulator writes."""
    descriptors = []
    for kind, labels in RESOURCE_LABELS.items():
        descriptor = monitored_resource_pb2.MonitoredResourceDescriptor(type=kind)
        for label in labels:
            descriptor.labels.add(key=label)
        descriptors.append(descriptor)
    page, token = paginate(descriptors, max(0, request.page_size), request.page_token, MAX_PAGE_SIZE)
    return ListMonitoredResourceDescriptorsResponse(resource_descriptors=page, next_page_token=token)


def compiled(text: str) -> Callable[[Any], bool]:
    """Compile a filter, or raise the error of the service."""
    try:
        return compile_filter(text)
    except MalformedFilter as error:
        raise invalid(f"Unparseable filter: {error}") from error


def _routes(verb: str, field: str, collection: str = "") -> list[Route]:
    suffix = f"/{collection}" if collection else ""
    pattern = "*" if collection else "*/logs/*"
    containers = ("projects", "organizations", "folders", "billingAccounts")
    return [Route(verb, f"/v2/{{{field}={container}/{pattern}}}{suffix}") for container in containers]


def _plain(handle: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda request, _: handle(request)


def _merged(given: Any, request: Any) -> Any:
    entry = Entry()
    entry.CopyFrom(given)
    name = entry.log_name or request.log_name
    if not name:
        raise invalid("Log entries need a log_name, in the entry or in the request.")
    entry.log_name = canonical(name)
    if not entry.HasField("resource"):
        entry.resource.CopyFrom(request.resource)
    for key, value in request.labels.items():
        if key not in entry.labels:
            entry.labels[key] = value
    if entry.ByteSize() > MAX_ENTRY_BYTES:
        kib = entry.ByteSize() / 1024
        raise invalid(f"Log entry with size {kib:.1f}K exceeds maximum size of {MAX_ENTRY_BYTES / 1024:.1f}K")
    return entry


def _write_error(errors: dict[int, ServiceError], *, has_written: bool) -> ServiceError:
    """Return the first error, and all of them by the index of the entry if other entries were written."""
    first = next(iter(errors.values()))
    if not has_written:
        return first
    by_index = {str(index): {"code": error.number, "message": error.message} for index, error in errors.items()}
    return ServiceError(first.code, first.message, [{"@type": ERRORS_TYPE, "logEntryErrors": by_index}])


def _key(entry: Any) -> tuple[int, int, str, str]:
    """Return what entries are sorted by: their time, then their id."""
    project = entry.log_name.partition("/logs/")[0]
    return entry.timestamp.seconds, entry.timestamp.nanos, entry.insert_id, project


def _newest_first(order_by: str) -> bool:
    if order_by not in ("", "timestamp", "timestamp asc", "timestamp desc"):
        raise invalid(f"Unsupported order_by {order_by!r}: expected 'timestamp asc' or 'timestamp desc'.")
    return order_by.endswith(" desc")


def _digest(arguments: list[str]) -> str:
    return hashlib.sha256(json.dumps(arguments).encode()).hexdigest()[:16]


def _token(key: tuple[int, int, str, str], arguments: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([arguments, *key]).encode()).decode()


def _position(token: str, arguments: str) -> tuple[Any, ...] | None:
    """Return the key of the last entry of the previous page."""
    if not token:
        return None
    try:
        digest, seconds, nanos, insert_id, project = json.loads(base64.urlsafe_b64decode(token))
        key = int(seconds), int(nanos), str(insert_id), str(project)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise invalid("page_token must be the next_page_token of an earlier response.") from error
    if digest != arguments:
        raise invalid("page_token doesn't match arguments from the request")
    return key
