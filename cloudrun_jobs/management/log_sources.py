"""Read the new log entries of a run, from its backend or from the file of a local run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

from cloudrun_jobs import backends
from cloudrun_jobs.backends.base import Backend
from cloudrun_jobs.backends.log_entries import LogEntry, LogQuery
from cloudrun_jobs.deploy.target import cloudrun_backend_or_none
from cloudrun_jobs.exceptions import InvalidSettings
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.runs import local_output

# The quota of a project is 60 reads per minute. Ten followers read five times each.
READ_INTERVAL = 12.0  # seconds
LOCAL_READ_INTERVAL = 0.2  # seconds
INGESTION_SECONDS = 5.0  # Entries may arrive after the end of their run.
INDEXING_TOLERANCE = timedelta(seconds=60)  # Entries are listed some time after they are received.


class Source(Protocol):
    """Reads the log of one run."""

    interval: float  #: Seconds between two reads.
    delay: float  #: Seconds after the end of the run until its last entries can be read.

    def read(self, run: JobRun) -> Iterable[LogEntry]:
        """Return the entries that no earlier call has returned."""
        ...


def source_of(run: JobRun, query: LogQuery) -> Source | None:
    """Return the source of the run's entries; None if its output is not kept."""
    if (path := local_output.path_of(run.execution)) is not None:
        return FileSource(local_output.LocalLog(path), query)
    backend = _keeper(run)
    return BackendSource(backend, query) if backend is not None else None


def _keeper(run: JobRun) -> Backend | None:
    """Return the backend that keeps the log: for a run on Celery workers, the one for Cloud Run."""
    try:
        backend = backends.for_run(run)
    except InvalidSettings:  # It is no longer configured.
        return cloudrun_backend_or_none()
    return backend if backend.keeps_logs else cloudrun_backend_or_none()


class FileSource:
    """The output of `run --local`."""

    interval, delay = LOCAL_READ_INTERVAL, 0.0

    def __init__(self, log: local_output.LocalLog, query: LogQuery) -> None:
        self._log, self._query = log, query

    def read(self, run: JobRun) -> Iterable[LogEntry]:
        return filter(self._query.includes, self._log.read())


class BackendSource:
    """The entries that a backend keeps."""

    interval, delay = READ_INTERVAL, INGESTION_SECONDS

    def __init__(self, backend: Backend, query: LogQuery) -> None:
        self._backend, self._query = backend, query
        self._seen: set[tuple[str, datetime]] = set()  # Those of the last two reads.
        self._read_before: set[tuple[str, datetime]] = set()
        self._received: datetime | None = None  # The newest, by the service's clock.

    def read(self, run: JobRun) -> Iterable[LogEntry]:
        """Read the entries received since the last call: entries may arrive out of order."""
        since = self._received and self._received - INDEXING_TOLERANCE
        found = set()
        for entry in self._backend.read_log(run, replace(self._query, received_since=since)):
            key = entry.id, entry.time
            found.add(key)
            self._received = max(filter(None, (self._received, entry.received)), default=None)
            if key not in self._seen:
                self._seen.add(key)  # At once: the next page may fail, and is then read again.
                yield entry
        self._seen, self._read_before = found | self._read_before, found
