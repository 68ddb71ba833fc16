"""Write the log entries of one attempt, with the resource and labels that Cloud Run sets."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from google.logging.type import log_severity_pb2
from google.protobuf import json_format

from cloudrun_jobs.emulator import names
from cloudrun_jobs.emulator.logs.store import Entry, LogStore

if TYPE_CHECKING:
    from google.cloud import run_v2

FIELD_PREFIX = "logging.googleapis.com/"
MESSAGE_FIELDS = {
    f"{FIELD_PREFIX}sourceLocation": "source_location",
    f"{FIELD_PREFIX}operation": "operation",
    "httpRequest": "http_request",
}
LABEL_PREFIX = "run.googleapis.com/"


class TaskLog:
    """The log of an attempt. `shared` is the `base_entry` of its execution."""

    def __init__(self, store: LogStore, shared: Any, index: int, attempt: int) -> None:
        self._store = store
        self._base = Entry()
        self._base.CopyFrom(shared)
        self._base.labels[f"{LABEL_PREFIX}task_index"] = str(index)
        self._base.labels[f"{LABEL_PREFIX}task_attempt"] = str(attempt)
        self._base.labels["instanceId"] = uuid.uuid4().hex

    def line(self, stream: str, line: str) -> None:
        """Log a line of output; a JSON object becomes a structured entry."""
        entry = self._entry(stream)
        fields = _json_object(line)
        if fields is None:
            entry.text_payload = line
        else:
            _structure(entry, fields)
        self._store.add(entry)

    def system(self, message: str, severity: str = "INFO") -> None:
        """Log a message of the platform about the task."""
        entry = self._entry("varlog%2Fsystem")
        entry.text_payload = message
        entry.severity = log_severity_pb2.LogSeverity.Value(severity)
        self._store.add(entry)

    def out_of_memory(self, limit: int, used: int) -> None:
        mib = 1 << 20
        self.system(
            f"Memory limit of {limit // mib} MiB exceeded with {used // mib} MiB used. "
            "Consider increasing the memory limit.",
            "ERROR",
        )

    def _entry(self, log: str) -> Any:
        entry = Entry()
        entry.CopyFrom(self._base)
        entry.log_name += log
        return entry


def base_entry(execution: run_v2.Execution) -> Any:
    """Return an entry with the fields shared by all entries of an execution; its log name is a prefix."""
    location = names.location_of(execution.name)
    entry = Entry(log_name=f"projects/{location.project}/logs/run.googleapis.com%2F")
    entry.resource.type = "cloud_run_job"
    entry.resource.labels["project_id"] = location.project
    entry.resource.labels["location"] = location.region
    entry.resource.labels["job_name"] = execution.job
    entry.labels[f"{LABEL_PREFIX}execution_name"] = names.short(execution.name)
    return entry


def _json_object(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def _structure(entry: Any, fields: dict[str, Any]) -> None:
    """Move the object's special fields to the fields of the entry; the rest is the payload.

    https://cloud.google.com/logging/docs/structured-logging#structured_logging_special_fields
    """
    entry.severity = _severity(fields.pop("severity", "DEFAULT"))
    for key, value in _object(fields.pop(f"{FIELD_PREFIX}labels", {})).items():
        entry.labels[key] = str(value)
    for name, field in (("trace", "trace"), ("spanId", "span_id"), ("insertId", "insert_id")):
        if isinstance(fields.get(FIELD_PREFIX + name), str):
            setattr(entry, field, fields.pop(FIELD_PREFIX + name))
    if isinstance(fields.get(f"{FIELD_PREFIX}trace_sampled"), bool):
        entry.trace_sampled = fields.pop(f"{FIELD_PREFIX}trace_sampled")
    for name, field in MESSAGE_FIELDS.items():
        _lift(fields, name, getattr(entry, field))
    _lift_time(entry, fields)
    if set(fields) == {"message"} and isinstance(fields["message"], str):
        entry.text_payload = fields["message"]
        return
    try:
        json_format.ParseDict(fields, entry.json_payload)
    except (json_format.ParseError, RecursionError):
        # For example, a number beyond the range of a double, or too deep nesting: store the text.
        entry.text_payload = json.dumps(fields)


def _lift(fields: dict[str, Any], name: str, target: Any) -> None:
    """Move an object from the payload to a field of the entry, unless it does not fit the field."""
    if isinstance(value := fields.get(name), dict):
        try:
            json_format.ParseDict(value, target)
        except json_format.ParseError:
            target.Clear()
        else:
            del fields[name]


def _lift_time(entry: Any, fields: dict[str, Any]) -> None:
    for name in ("time", "timestamp"):
        value = fields.get(name)
        try:
            if isinstance(value, str):
                entry.timestamp.FromJsonString(value)
            elif isinstance(value, dict) and value.keys() == {"seconds", "nanos"}:
                entry.timestamp.seconds, entry.timestamp.nanos = int(value["seconds"]), int(value["nanos"])
            else:
                continue
        except (TypeError, ValueError):  # It is not a time, and stays in the payload.
            entry.ClearField("timestamp")
        else:
            del fields[name]
            return


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _severity(name: Any) -> int:
    try:
        return int(log_severity_pb2.LogSeverity.Value(str(name).upper()))
    except ValueError:
        return 0
