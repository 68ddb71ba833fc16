"""Cloud Run Jobs and Scheduler jobs as the code declares them. Google's clients are not imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from cloudrun_jobs import cron
from cloudrun_jobs.backends.cloudrun import targets
from cloudrun_jobs.deploy.plan import Desired, Redacted

OWNERSHIP_ANNOTATION = "cloudrun-jobs/managed"  # Holds the ownership label of a Cloud Run Job.
CLOUD_SQL_PATH = "/cloudsql"  # Where Google's tools mount the sockets of Cloud SQL instances.
INTERFACE_FIELDS = ("network", "subnetwork", "tags")  # The keys of `vpc` for a network interface.


@dataclass(frozen=True, slots=True)
class Secret:
    """The value of a variable in Secret Manager."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"secret {self.name}:{self.version}"


@dataclass(frozen=True, slots=True)
class SecretFiles:
    """A volume of secrets, as the service's serialized message."""

    path: str
    message: bytes

    def __str__(self) -> str:
        return f"secrets in {self.path}"


@dataclass(frozen=True, kw_only=True)
class SharedFields:
    """The fields that `--from-service` copies from a service to the jobs."""

    env_vars: Mapping[str, Redacted | Secret] = field(default_factory=dict)
    cloud_sql: Mapping[str, str] = field(default_factory=dict)  # The mount path of each instance.
    vpc: Mapping[str, Any] = field(default_factory=dict)
    volumes: Mapping[str, SecretFiles] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DesiredJob(SharedFields, Desired):
    """A Cloud Run Job."""

    image: str | None
    entrypoint: tuple[str, ...]
    args: tuple[str, ...]
    timeout: timedelta
    max_retries: int
    tasks: int
    task_parallelism: int | None = None
    cpu: str | None = None
    memory: str | None = None
    service_account: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        return "  ".join(filter(None, (self.image, self.note)))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPool:
    """A worker pool of Celery: a container as a job's, and what its worker serves."""

    job: DesiredJob
    app: str | None  # The dotted path of the Celery app.
    queues: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DesiredSchedulerJob(Desired):
    """A Scheduler job, which starts a Cloud Run Job or calls the web service."""

    summary_fields = frozenset({"schedule", "time_zone"})

    schedule: str
    time_zone: str
    url: str
    token: targets.AuthToken
    method: str = "POST"
    content_type: str = targets.CONTENT_TYPE
    args: tuple[str, ...]
    tick: str
    to_service: bool
    attempt_deadline: timedelta | None = None
    retry_config: Mapping[str, int | timedelta] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        return targets.encode_body(targets.tick_body(self.args, self.tick, to_service=self.to_service))

    def summary(self) -> str:
        parts = [self.schedule, self.time_zone]
        if due := cron.next_time(self.schedule, self.time_zone, datetime.now(UTC)):
            parts.append(f"next {due.astimezone(ZoneInfo(self.time_zone)):%a %d %b %Y %H:%M}")
        return "  ".join(filter(None, (*parts, self.note)))
