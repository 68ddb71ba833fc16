"""Read the entries of a run from Cloud Logging."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from google.cloud.logging_v2.types import ListLogEntriesRequest
from google.cloud.logging_v2.types import LogEntry as GoogleEntry
from google.protobuf import json_format

from cloudrun_jobs.backends.cloudrun import clients
from cloudrun_jobs.backends.cloudrun.errors import ApiMethod, translate_errors
from cloudrun_jobs.backends.cloudrun.quota import RETRY_WHEN_EXHAUSTED, Quota
from cloudrun_jobs.backends.log_entries import SEVERITIES, LogEntry, LogQuery
from cloudrun_jobs.models.runs import short_name

if TYPE_CHECKING:
    from cloudrun_jobs.backends.cloudrun import CloudRunBackend
    from cloudrun_jobs.models import JobRun

LIST = ApiMethod(permission="logging.logEntries.list", role="roles/logging.viewer", polls=True)
PAGE_SIZE = 1000
# Below the quota of 60 per project: https://cloud.google.com/logging/quotas#api-limits
READS_PER_MINUTE = 50
CLOCK_TOLERANCE = timedelta(minutes=10)  # Between the clocks of the database, the containers and the service.
NAMES = {number: name for name, number in SEVERITIES.items()}
LABEL = "run.googleapis.com/"


def read_entries(backend: CloudRunBackend, run: JobRun, query: LogQuery) -> Iterator[LogEntry]:
    """Yield the entries in the order of their times, page by page. Raises one of the `ServiceError`s."""
    parent = f"projects/{backend.settings.project}"
    request = ListLogEntriesRequest(
        resource_names=[parent], filter=filter_of(run, query), order_by="timestamp asc", page_size=PAGE_SIZE
    )
    while True:
        _read_quota().wait()
        with translate_errors(f"{parent}/logs", LIST, endpoint=backend.endpoint):
            client = clients.logging(backend.server)
            pager = client.list_log_entries(request, retry=RETRY_WHEN_EXHAUSTED, timeout=backend.rpc_timeout)
            page = next(iter(pager.pages))
        yield from (_entry(GoogleEntry.pb(each)) for each in page.entries)
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return


def has_entry(backend: CloudRunBackend, condition: str) -> bool:
    """Return True if an entry of the last day matches the condition, of Cloud Logging's query language."""
    parent = f"projects/{backend.settings.project}"
    request = ListLogEntriesRequest(resource_names=[parent], filter=condition, page_size=1)
    with translate_errors(f"{parent}/logs", LIST, endpoint=backend.endpoint):
        _read_quota().wait()
        client = clients.logging(backend.server)
        pager = client.list_log_entries(request, retry=RETRY_WHEN_EXHAUSTED, timeout=backend.rpc_timeout)
        return next(iter(pager), None) is not None  # A page may be empty, and another one follow.


@cache
def _read_quota() -> Quota:
    return Quota(READS_PER_MINUTE)


# Its lock may be held by a thread that a forked child does not have.
os.register_at_fork(after_in_child=_read_quota.cache_clear)


def filter_of(run: JobRun, query: LogQuery) -> str:
    """Return the filter, in Cloud Logging's query language."""
    since = query.since or (run.created_at - CLOCK_TOLERANCE)
    return " AND ".join([_source(run), *_conditions(run, query), f'timestamp>="{_time(since)}"'])


def _source(run: JobRun) -> str:
    """Return the condition for the run's execution; or for its label, in a service or a worker pool."""
    if names := _executions(run):
        label = f'labels."{LABEL}execution_name"'
        choices = " OR ".join(f"{label}={_quoted(name)}" for name in names)
        return f'resource.type="cloud_run_job" AND ({choices})'
    kinds = 'resource.type="cloud_run_revision" OR resource.type="cloud_run_worker_pool"'
    return f"({kinds}) AND labels.run={_quoted(str(run.pk))}"


def _executions(run: JobRun) -> list[str]:
    """Return the short names of the executions of Cloud Run that ran the tasks, and `reduce()`."""
    names = (short_name(run.tasks_execution_name), run.execution)
    return [name for name in names if name] if run.execution and run.execution != str(run.pk) else []


def _conditions(run: JobRun, query: LogQuery) -> Iterator[str]:
    if query.task is not None:
        label = f'"{LABEL}task_index"' if _executions(run) else "task"
        yield f'labels.{label}="{query.task}"'
    if query.severity != "DEFAULT":
        yield f"severity>={query.severity}"
    if query.received_since is not None:
        yield f'receiveTimestamp>="{_time(query.received_since)}"'


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _time(when: datetime) -> str:
    return when.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _entry(entry: Any) -> LogEntry:
    """Return the entry of a raw message: proto-plus takes ten times as long."""
    return LogEntry(
        id=entry.insert_id,
        time=entry.timestamp.ToDatetime(UTC),
        severity=NAMES.get(entry.severity, "DEFAULT"),
        text=_text(entry),
        task=_number(entry, "task_index", "task"),
        attempt=_number(entry, "task_attempt", "attempt"),
        received=entry.receive_timestamp.ToDatetime(UTC) if entry.HasField("receive_timestamp") else None,
    )


def _text(entry: Any) -> str:
    if entry.HasField("json_payload"):
        return _payload_text(json_format.MessageToDict(entry.json_payload))
    if entry.HasField("proto_payload"):
        return f"({entry.proto_payload.type_url})"  # An audit log's.
    return str(entry.text_payload)


def _payload_text(payload: dict[str, Any]) -> str:
    message, trace = payload.get("message"), payload.get("stack_trace")
    if not isinstance(message, str):
        return json.dumps(payload, ensure_ascii=False)
    return f"{message.rstrip()}\n{trace.rstrip()}" if isinstance(trace, str) and trace else message


def _number(entry: Any, *labels: str) -> int | None:
    """Return the number in Cloud Run's label, or else in the job's label."""
    for label in (f"{LABEL}{labels[0]}", labels[1]):
        if label in entry.labels and entry.labels[label].isdecimal():
            return int(entry.labels[label])
    return None
