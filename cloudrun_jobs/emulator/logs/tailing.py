"""Stream new log entries to clients, as `gcloud logging tail` does."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from google.cloud.logging_v2.types import TailLogEntriesRequest, TailLogEntriesResponse

from cloudrun_jobs.emulator.errors import ServiceError, invalid
from cloudrun_jobs.emulator.logs.names import prefixes

if TYPE_CHECKING:
    from cloudrun_jobs.emulator.logs.store import LogStore

DEFAULT_WINDOW = timedelta(seconds=2)
MAX_WINDOW = timedelta(seconds=60)
MAX_SESSIONS = 10  # Per project.
MAX_BUFFERED = 10_000
RESPONSE_SIZE = 1000


class Tails:
    """The open sessions."""

    def __init__(self, store: LogStore, compiled: Callable[[str], Callable[[Any], bool]]) -> None:
        self._store = store
        self._compiled = compiled
        self._lock = threading.Lock()
        self._open: list[Tail] = []

    def open(self, request: TailLogEntriesRequest) -> Tail:
        """Start a session for the entries that arrive from now on."""
        window = request.buffer_window if "buffer_window" in request else DEFAULT_WINDOW
        if not timedelta() <= window <= MAX_WINDOW:
            raise invalid("buffer_window must be between 0 and 60000 milliseconds.")
        projects = prefixes(request.resource_names)
        tail = Tail(projects, self._compiled(request.filter), window.total_seconds(), self._close)
        with self._lock:
            if any(self._sessions(project) >= MAX_SESSIONS for project in projects):
                raise ServiceError("RESOURCE_EXHAUSTED", f"Too many tail sessions: {MAX_SESSIONS} are open.")
            self._open.append(tail)
        self._store.listen(tail.receive)
        return tail

    def _sessions(self, project: str) -> int:
        return sum(project in tail.projects for tail in self._open)

    def _close(self, tail: Tail) -> None:
        self._store.unlisten(tail.receive)
        with self._lock:
            self._open.remove(tail)


class Tail:
    """One session: an iterable of responses, until `close`.

    Entries wait for the buffer window, in real time, so that a response has them in the order of their timestamps.
    """

    def __init__(
        self,
        projects: tuple[str, ...],
        matches: Callable[[Any], bool],
        window: float,
        on_close: Callable[[Tail], None],
    ) -> None:
        self.projects = projects
        self._matches = matches
        self._window = window  # seconds
        self._on_close = on_close
        self._changed = threading.Condition()
        self._buffer: deque[tuple[float, Any]] = deque()  # With the time at which each may be sent.
        self._suppressed = 0
        self._is_closed = False

    def receive(self, entry: Any) -> None:
        """Keep an entry. The thread of the session applies the filter, so that it does not delay the writer."""
        if not entry.log_name.startswith(self.projects):
            return
        with self._changed:
            if len(self._buffer) < MAX_BUFFERED:
                self._buffer.append((time.monotonic() + self._window, entry))
            else:
                self._suppressed += 1
            self._changed.notify()

    def close(self) -> None:
        """End the session. Entries that still wait are not sent."""
        with self._changed:
            if self._is_closed:
                return
            self._is_closed = True
            self._changed.notify()
        self._on_close(self)

    def __iter__(self) -> Iterator[TailLogEntriesResponse]:
        while (taken := self._take()) is not None:
            entries, suppressed = [entry for entry in taken[0] if self._matches(entry)], taken[1]
            if entries or suppressed:
                yield _response(entries, suppressed)

    def _take(self) -> tuple[list[Any], int] | None:
        """Wait for entries; return those that may be sent, and the number of suppressed ones. None if closed."""
        with self._changed:
            while not self._is_closed:
                now = time.monotonic()
                wait = self._buffer[0][0] - now if self._buffer else None
                if wait is None or wait > 0:
                    self._changed.wait(wait)
                    continue
                entries: list[Any] = []
                while self._buffer and self._buffer[0][0] <= now and len(entries) < RESPONSE_SIZE:
                    entries.append(self._buffer.popleft()[1])
                suppressed, self._suppressed = self._suppressed, 0
                return entries, suppressed
        return None


def _response(entries: list[Any], suppressed: int) -> TailLogEntriesResponse:
    entries.sort(key=lambda entry: (entry.timestamp.seconds, entry.timestamp.nanos, entry.insert_id))
    response = TailLogEntriesResponse(entries=entries)
    if suppressed:
        info = TailLogEntriesResponse.SuppressionInfo
        response.suppression_info = [info(reason=info.Reason.NOT_CONSUMED, suppressed_count=suppressed)]
    return response
