"""Add the job, the run, the task and the trace to log records."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, cached_property
from importlib import import_module
from types import ModuleType
from typing import Any

from cloudrun_jobs import conf, environ
from cloudrun_jobs.exceptions import CloudRunJobsError

FIELD_PREFIX = "logging.googleapis.com/"
# Only versions after 00 may have more fields: https://www.w3.org/TR/trace-context/
TRACEPARENT_PATTERN = (
    r"(?!ff|00.{53}-)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
FILTER_MAY_REPLACE_RECORD = sys.version_info >= (3, 12)  # A filter may return another record.
RUN_VARIABLE = "_CLOUDRUN_JOBS_RUN"  # A container's execution and run, for the processes that the run starts.
ENTRY_ATTRIBUTE = "_cloudrun_jobs_entry"  # A record's attribute: the fields of its entry.


class JobContext:
    """The labels and the trace of a run's log entries."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        self.labels = {name: value for name, value in labels.items() if value}

    @cached_property
    def fields(self) -> dict[str, Any]:
        """The fields of an entry for the labels, and for the trace in TRACEPARENT."""
        labels = {f"{FIELD_PREFIX}labels": self.labels} if self.labels else {}
        return labels | _trace_fields(_parent(os.environ.get("TRACEPARENT", "")))

    @cached_property
    def json(self) -> str:
        """The fields in JSON form, without braces, with a trailing comma."""
        return in_json(self.fields)


def _trace_fields(trace: tuple[str, str, bool] | None) -> dict[str, Any]:
    if trace is None:
        return {}
    return {
        f"{FIELD_PREFIX}{name}": value
        for name, value in zip(("trace", "spanId", "trace_sampled"), trace, strict=True)
    }


def in_json(fields: Mapping[str, Any]) -> str:
    """Return fields in JSON form, without braces, with a trailing comma."""
    return f"{json.dumps(fields, ensure_ascii=False)[1:-1]}," if fields else ""


_current: ContextVar[JobContext | None] = ContextVar("cloudrun_jobs_log_context", default=None)
_active: list[JobContext] = []  # The runs of this process, except nested ones.
_latest: JobContext | None = None  # In a container, the last run of this process that has ended.


@contextmanager
def activated(job: str, run_id: str) -> Iterator[None]:
    """Set the current run for the log entries of the block and of the threads that it starts."""
    global _latest
    is_nested = _current.get() is not None
    context = JobContext({**_task_labels(environ.current_task()), "job": job, "run": run_id})
    token = _current.set(context)
    if not is_nested:
        _active.append(context)
        if environ.in_container() and len(_active) == 1:
            os.environ[RUN_VARIABLE] = f"{context.labels.get('execution')} {run_id}"
    try:
        yield
    finally:
        _current.reset(token)
        if not is_nested:
            _active.remove(context)
            if not _active:
                os.environ.pop(RUN_VARIABLE, None)
            _latest = context if environ.in_container() else None


def current() -> JobContext:
    """Return the context of the current run. Threads get that of the process's only run, or of the container."""
    if (context := _current.get()) is not None:
        return context
    if len(running := _active[:2]) == 1:
        return running[0]
    task = environ.current_task()
    if not running and _latest is not None and task and _latest.labels.get("execution") == task.execution:
        return _latest
    return JobContext(_task_labels(task))


def _task_labels(task: environ.CloudRunTask | None) -> dict[str, str]:
    if task is None:
        return {}
    execution, _, inherited = os.environ.get(RUN_VARIABLE, "").partition(" ")
    run_id = task.run_id or (inherited if execution == task.execution else "")
    labels = {"job": task.job, "run": run_id, "execution": task.execution}
    return labels | {"task": str(task.index), "attempt": str(task.attempt)}


def _span() -> tuple[str, str, bool] | None:
    """Return the ids of OpenTelemetry's current trace and span, and True if it is sampled; None without one."""
    if (module := sys.modules.get("opentelemetry.trace")) is None:
        return None
    try:
        span = module.get_current_span().get_span_context()
        if span.is_valid:
            return _name(f"{span.trace_id:032x}"), f"{span.span_id:016x}", bool(span.trace_flags & 1)
    except Exception:  # noqa: BLE001,S110  (raised by a provider's own code)
        pass
    return None


@cache
def _parent(text: str) -> tuple[str, str, bool] | None:
    found = re.fullmatch(TRACEPARENT_PATTERN, text.strip()) if text else None
    return (_name(found[1]), found[2], bool(int(found[3], 16) & 1)) if found else None


def _name(trace_id: str) -> str:
    project = _project()
    return f"projects/{project}/traces/{trace_id}" if project else trace_id


@cache
def _project() -> str:
    try:
        project = conf.load().project
    except (CloudRunJobsError, Exception):  # noqa: BLE001  (raised by the project's settings; reported elsewhere)
        project = ""
    return project or os.environ.get("GOOGLE_CLOUD_PROJECT", "")


def fields() -> dict[str, Any]:
    """Return the fields of an entry for the labels and the trace. Do not change them."""
    found, span = current().fields, _span()
    return found if span is None else found | _trace_fields(span)


def fields_in_json() -> str:
    """Return the same fields in JSON form, without braces, with a trailing comma."""
    context, span = current(), _span()
    return context.json if span is None else in_json(context.fields | _trace_fields(span))


class JobContextFilter(logging.Filter):
    """Turn log records into Cloud Logging entries. Add this filter to the handlers in LOGGING.

    It adds the severity, the labels of the current job, the trace and the source location. It converts the message
    and the extras to types that JSON can represent. JSON formatters write all of them; others write the message.
    """

    def filter(self, record: logging.LogRecord) -> bool | logging.LogRecord:  # type: ignore[override]  # of 3.11
        if self.nlen and not super().filter(record):
            return False
        if ENTRY_ATTRIBUTE in record.__dict__:
            return True
        try:
            return self._prepared(record)
        except Exception:  # noqa: BLE001  (whatever is wrong with a record, the job continues)
            return True

    def _prepared(self, record: logging.LogRecord) -> bool | logging.LogRecord:
        return prepared(record, _replace_for_google if "_labels_str" in record.__dict__ else _set_fields)


class GoogleFilter(JobContextFilter):
    """A `JobContextFilter` for a handler that calls google-cloud-logging's filter afterwards."""

    def _prepared(self, record: logging.LogRecord) -> bool | logging.LogRecord:
        return prepared(record, _set_for_google)


@cache
def _entries() -> ModuleType:
    return import_module("cloudrun_jobs.logs.entries")  # Not when the job starts: it may log nothing.


def prepared(record: logging.LogRecord, write: Callable[..., None]) -> bool | logging.LogRecord:
    """Return a copy of the record that `write` turns into an entry; on Python 3.11, change the record itself."""
    entries = _entries()
    names = entries.extra_names(record)
    fields, extras = entries.fields_of(record, names)
    if not entries.fits_surely(fields, extras):
        fitting = entries.fit({**extras, **fields}, entries.size_in_ascii)
        fields, extras = ({name: fitting[name] for name in part} for part in (fields, extras))
    target, given = record, record.__dict__
    if FILTER_MAY_REPLACE_RECORD:  # Other handlers see the record as it was.
        target = logging.LogRecord.__new__(type(record))
        given = target.__dict__
        given.update(record.__dict__)
        given["exc_info"] = given["exc_text"] = given["stack_info"] = None
    for name in names:
        del given[name]
    given["levelname"] = fields["severity"]
    write(given, fields, extras)
    given[ENTRY_ATTRIBUTE] = {**fields, **extras}
    return target if FILTER_MAY_REPLACE_RECORD else True


def _set_fields(given: dict[str, Any], fields: dict[str, Any], extras: dict[str, Any]) -> None:
    """Set the fields as attributes, which JSON formatters write."""
    for name, value in extras.items():
        is_taken = name in given and not (name == "stack_info" and isinstance(value, str))
        given[f"extra_{name}" if is_taken else name] = value
    given.update(fields)
    given["msg"], given["args"] = given.pop("message"), ()


class _Payload(dict[str, Any]):
    """The payload of an entry as the message of a record: google-cloud-logging writes mappings unchanged."""

    def __str__(self) -> str:
        return str(self["message"])


def _set_for_google(given: dict[str, Any], fields: dict[str, Any], extras: dict[str, Any]) -> None:
    """Set the attributes that google-cloud-logging's filter reads: other values make it fail."""
    given["labels"] = fields.get(f"{FIELD_PREFIX}labels", {})
    given["source_location"] = fields[f"{FIELD_PREFIX}sourceLocation"]
    if f"{FIELD_PREFIX}trace" in fields:
        given["trace"], given["span_id"] = fields[f"{FIELD_PREFIX}trace"], fields[f"{FIELD_PREFIX}spanId"]
        given["trace_sampled"] = fields[f"{FIELD_PREFIX}trace_sampled"]
    if isinstance(extras.get("http_request"), dict):
        given["http_request"] = extras.pop("http_request")
    _set_payload(given, fields, extras)


def _set_payload(given: dict[str, Any], fields: dict[str, Any], extras: dict[str, Any]) -> None:
    own = {
        name: value for name, value in fields.items() if not name.startswith(FIELD_PREFIX) and name != "severity"
    }
    given["msg"], given["args"] = _Payload({**extras, **own}), ()


def _replace_for_google(given: dict[str, Any], fields: dict[str, Any], extras: dict[str, Any]) -> None:
    """Replace the attributes that StructuredLogHandler's filter has set on the record before this filter."""
    found = given["_labels"] if isinstance(given.get("_labels"), Mapping) else {}
    labels = {str(key): str(value) for key, value in found.items()} | fields.get(f"{FIELD_PREFIX}labels", {})
    trace = fields.get(f"{FIELD_PREFIX}trace", given["_trace"] if isinstance(given.get("_trace"), str) else "")
    span = fields.get(f"{FIELD_PREFIX}spanId", given["_span_id"] if isinstance(given.get("_span_id"), str) else "")
    sampled = fields.get(f"{FIELD_PREFIX}trace_sampled", given.get("_trace_sampled") is True)
    request = extras.pop("http_request", None)
    given["_labels_str"] = json.dumps(labels, ensure_ascii=False)
    given["_trace_str"], given["_span_id_str"] = json.dumps(trace)[1:-1], json.dumps(span)[1:-1]
    given["_trace_sampled_str"] = "true" if sampled else "false"
    given["_source_location_str"] = json.dumps(fields[f"{FIELD_PREFIX}sourceLocation"], ensure_ascii=False)
    if request is not None:
        given["_http_request_str"] = json.dumps(request, ensure_ascii=False) if isinstance(request, dict) else "{}"
    _set_payload(given, fields, extras)
