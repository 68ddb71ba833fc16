"""Write the log entries of Cloud Scheduler's deliveries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.logging.type import log_severity_pb2

from cloudrun_jobs.emulator import names
from cloudrun_jobs.emulator.logs.store import Entry, LogStore

if TYPE_CHECKING:
    from datetime import datetime

    from google.cloud import scheduler_v1

    from cloudrun_jobs.emulator.http_delivery import Result

TYPE_PREFIX = "type.googleapis.com/google.cloud.scheduler.logging."


class DeliveryLog:
    def __init__(self, store: LogStore) -> None:
        self._store = store

    def started(self, job: scheduler_v1.Job, scheduled: datetime | None) -> None:
        entry = _entry(job, "AttemptStarted")
        if scheduled is not None:
            entry.json_payload["scheduledTime"] = scheduled.isoformat()
        self._store.add(entry)

    def finished(self, job: scheduler_v1.Job, result: Result) -> None:
        entry = _entry(job, "AttemptFinished")
        entry.severity = log_severity_pb2.LogSeverity.Value("INFO" if result.acknowledged else "ERROR")
        entry.json_payload["debugInfo"] = result.debug
        if not result.acknowledged:
            entry.json_payload["status"] = result.code
        if result.status:
            entry.http_request.status = result.status
        self._store.add(entry)


def _entry(job: scheduler_v1.Job, kind: str) -> Any:
    location = names.location_of(job.name)
    entry = Entry(log_name=f"projects/{location.project}/logs/cloudscheduler.googleapis.com%2Fexecutions")
    entry.resource.type = "cloud_scheduler_job"
    entry.resource.labels["project_id"] = location.project
    entry.resource.labels["location"] = location.region
    entry.resource.labels["job_id"] = names.short(job.name)
    entry.json_payload["@type"] = TYPE_PREFIX + kind
    entry.json_payload["jobName"] = job.name
    entry.json_payload["targetType"] = "HTTP"
    entry.json_payload["url"] = job.http_target.uri
    return entry
