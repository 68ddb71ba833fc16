"""What jobs declare about their resources, as Cloud Run Jobs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from cloudrun_jobs import conf
from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.command_line import build
from cloudrun_jobs.deploy.cloudrun.field_values import CLOUD_SQL, Secret
from cloudrun_jobs.deploy.plan import Desired, OwnershipLabel, Redacted
from cloudrun_jobs.spec import JobSpec, canonical_cpu, canonical_memory

if TYPE_CHECKING:
    from cloudrun_jobs.backends.cloudrun import CloudRunBackend


def declared(
    jobs: Iterable[CloudRunJobs],
    backend: CloudRunBackend,
    *,
    image: str | None = None,
    service: Mapping[str, Any] | None = None,
) -> list[Desired]:
    """Return these jobs as they should be; `service` are the fields that they share with the web service."""
    return [_job(job, backend, image, service or {}) for job in jobs]


def _job(job: CloudRunJobs, backend: CloudRunBackend, image: str | None, service: Mapping[str, Any]) -> Desired:
    spec = job.spec
    optional = dict(_optional(spec, backend))
    fields = {
        **dict(_always(job, spec, image)),
        **service,
        **dict(_told(backend)),
        **optional,
    }
    mark = OwnershipLabel(environment=spec.environment, command=spec.command, fields=tuple(sorted(optional)))
    return Desired(
        id=spec.name, label=spec.command, mark=mark, fields=fields, summary=partial(_summary, spec, fields)
    )


def _always(job: CloudRunJobs, spec: JobSpec, image: str | None) -> Iterator[tuple[str, Any]]:
    """Yield what is written whether the class declares it or not: what a run does depends on it."""
    # The image of one class is for that class; --image is for all the others, before that of DEFAULTS.
    if wanted := getattr(type(job), "image", None) or image or spec.image:
        yield "image", wanted
    yield "entrypoint", spec.entrypoint
    # What a command requires may be known to its callers alone: only declared arguments must suffice.
    yield "args", build(job, (), spec.args, {}) if spec.args else (spec.command,)
    yield "timeout", spec.timeout
    yield "max_retries", spec.max_retries
    yield "tasks", spec.tasks


def _told(backend: CloudRunBackend) -> Iterator[tuple[str, Any]]:
    """Yield what a container must know to be of this environment."""
    for key in ("ENVIRONMENT", "PROJECT", "REGION"):
        yield f"env_vars.{conf.PREFIX}{key}", Redacted(getattr(backend.settings, key.lower()))


def _optional(spec: JobSpec, backend: CloudRunBackend) -> Iterator[tuple[str, Any]]:
    """Yield what is left to others unless it is declared."""
    if "task_parallelism" in spec.declared:
        yield "task_parallelism", spec.task_parallelism
    if "cpu" in spec.declared:
        yield "cpu", canonical_cpu(spec.cpu)
    if "memory" in spec.declared:
        yield "memory", canonical_memory(spec.memory)
    if account := spec.service_account or backend.service_account:
        yield "service_account", account
    yield from _surroundings(spec, backend)


def _surroundings(spec: JobSpec, backend: CloudRunBackend) -> Iterator[tuple[str, Any]]:
    yield from ((f"labels.{name}", value) for name, value in spec.labels.items())
    yield from ((f"env_vars.{name}", Redacted(value)) for name, value in spec.env_vars.items())
    for name, reference in spec.secrets.items():
        secret, _, version = reference.partition(":")
        yield f"env_vars.{name}", Secret(secret, version or "latest")
    yield from ((f"cloud_sql.{instance}", CLOUD_SQL) for instance in spec.cloud_sql)
    for name, value in (spec.vpc or {}).items():
        yield f"vpc.{name}", _vpc_value(name, value, backend)


def _vpc_value(name: str, value: Any, backend: CloudRunBackend) -> Any:
    if name == "connector" and "/" not in value:
        settings = backend.settings
        return f"projects/{settings.project}/locations/{settings.region}/connectors/{value}"
    return tuple(value) if name == "tags" else value


def _summary(spec: JobSpec, fields: Mapping[str, Any]) -> str:
    shortened = f"(named {spec.name}: shortened to 63 characters)" if spec.is_shortened else ""
    return "  ".join(filter(None, (fields.get("image", ""), shortened)))
