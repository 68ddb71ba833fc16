"""Store and list log entries, oldest first, up to a maximum number."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from google.cloud.logging_v2.types import (
    ListLogEntriesRequest,
    ListLogEntriesResponse,
    LogEntry,
    WriteLogEntriesRequest,
    WriteLogEntriesResponse,
)

from cloudrun_jobs.emulator.errors import invalid
from cloudrun_jobs.emulator.logs.filters import MalformedFilter, compile_filter

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudrun_jobs.emulator.clock import Clock

MAX_ENTRIES = 50_000
MAX_PAGE_SIZE = 1000
# The raw message: there are many thousands of entries, and proto-plus takes ten times as long for each.
Entry: Any = LogEntry.pb()


class LogStore:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._entries: deque[Any] = deque(maxlen=MAX_ENTRIES)

    def add(self, entry: Any) -> None:
        """Store an entry, adding a timestamp and an id if it has none."""
        now = self._clock.now()
        with self._lock:
            entry.receive_timestamp.FromDatetime(now)
            if not entry.HasField("timestamp"):
                entry.timestamp.FromDatetime(now)
            if not entry.insert_id:
                entry.insert_id = f"emulator-{next(self._ids):012d}"
            self._entries.append(entry)

    def write(self, request: WriteLogEntriesRequest) -> WriteLogEntriesResponse:
        """Store the entries of a client, with the defaults that the request gives for all of them."""
        pb = WriteLogEntriesRequest.pb(request)
        entries = [self._merged(entry, pb) for entry in pb.entries]
        if not request.dry_run:
            for entry in entries:
                self.add(entry)
        return WriteLogEntriesResponse()

    def listed(self, request: ListLogEntriesRequest) -> ListLogEntriesResponse:
        matches = _compiled(request.filter)
        projects = _project_prefixes(request)
        with self._lock:
            found = [entry for entry in self._entries if _belongs(entry, projects) and matches(entry)]
        found.sort(key=_sort_key, reverse=_newest_first(request.order_by))
        start = _start(request.page_token)
        end = start + min(request.page_size or MAX_PAGE_SIZE, MAX_PAGE_SIZE)
        token = str(end) if end < len(found) else ""
        return ListLogEntriesResponse(entries=found[start:end], next_page_token=token)

    def all(self) -> list[Any]:
        with self._lock:
            return list(self._entries)

    @staticmethod
    def _merged(given: Any, request: Any) -> Any:
        entry = Entry()
        entry.CopyFrom(given)
        entry.log_name = entry.log_name or request.log_name
        if not entry.log_name:
            raise invalid("Log entries need a log_name, in the entry or in the request.")
        if not entry.HasField("resource"):
            entry.resource.CopyFrom(request.resource)
        for key, value in request.labels.items():
            if key not in entry.labels:
                entry.labels[key] = value
        return entry


def _compiled(text: str) -> Callable[[Any], bool]:
    try:
        return compile_filter(text)
    except MalformedFilter as error:
        raise invalid(f"Unparseable filter: {error}") from error


def _project_prefixes(request: ListLogEntriesRequest) -> tuple[str, ...]:
    if not request.resource_names:
        raise invalid("resource_names must name at least one project.")
    # Views and buckets are ignored; only the project at the start of the name matters.
    return tuple("/".join(name.split("/")[:2]) + "/" for name in request.resource_names)


def _belongs(entry: Any, projects: tuple[str, ...]) -> bool:
    return str(entry.log_name).startswith(projects)


def _sort_key(entry: Any) -> tuple[int, int]:
    return entry.timestamp.seconds, entry.timestamp.nanos


def _newest_first(order_by: str) -> bool:
    if order_by not in ("", "timestamp", "timestamp asc", "timestamp desc"):
        raise invalid(f"Unsupported order_by {order_by!r}: expected 'timestamp asc' or 'timestamp desc'.")
    return order_by.endswith(" desc")


def _start(page_token: str) -> int:
    if page_token and not page_token.isdecimal():
        raise invalid("page_token must be the next_page_token of an earlier response.")
    return int(page_token or 0)
