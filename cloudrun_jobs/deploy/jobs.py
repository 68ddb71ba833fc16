"""The Cloud Run Jobs that the code declares."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from cloudrun_jobs import conf
from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.command_line import build
from cloudrun_jobs.deploy.desired import CLOUD_SQL_PATH, DesiredJob, Secret, SharedFields
from cloudrun_jobs.deploy.plan import Desired, Existing, Redacted, flatten
from cloudrun_jobs.exceptions import CloudRunJobsError
from cloudrun_jobs.spec import JobSpec, canonical_cpu, canonical_memory
from cloudrun_jobs.spec.job import SCRIPT, is_interpreter
from cloudrun_jobs.spec.ownership import OwnershipLabel

if TYPE_CHECKING:
    from cloudrun_jobs.backends.cloudrun import CloudRunBackend

KEPT_FIELDS = frozenset({"entrypoint", "args", "timeout", "max_retries", "tasks"})


def desired(
    jobs: Iterable[CloudRunJobs],
    backend: CloudRunBackend,
    *,
    image: str | None = None,
    service: SharedFields | None = None,
) -> list[DesiredJob]:
    """Return the Cloud Run Jobs. They inherit the fields of `service` that they do not declare."""
    own = [job for job in jobs if is_deployed(job.spec, backend)]
    return [_desired_job(job, backend, image, service or SharedFields()) for job in own]


def is_deployed(spec: JobSpec, backend: CloudRunBackend) -> bool:
    """Return True if the job has a Cloud Run Job: it runs on this backend."""
    return spec.backend_alias == backend.alias


def unfit_entrypoint(desired: Desired, existing: Existing) -> tuple[str, ...]:
    """Return the entrypoint that an adopted job keeps, if it cannot run the arguments; else ()."""
    entrypoint: tuple[str, ...] = existing.fields.get("entrypoint", ())
    is_kept = bool(entrypoint) and "entrypoint" in desired.initial
    has_script = desired.fields["args"][0] == SCRIPT
    return entrypoint if is_kept and is_interpreter(entrypoint) != has_script else ()


def reject_unfit_entrypoints(desired: Iterable[Desired], existing: Iterable[Existing]) -> None:
    """Raise `CloudRunJobsError` for an adopted job that would not start the command."""
    by_id = {item.id: item for item in existing}
    for item in desired:
        if item.id in by_id and (entrypoint := unfit_entrypoint(item, by_id[item.id])):
            message = (
                f"{item.label}: {item.id} keeps its entrypoint, {shlex.join(entrypoint)}, so no run would start."
            )
            raise CloudRunJobsError(message, hint=f"Declare entrypoint = {[*entrypoint]} in its class.")


def _desired_job(
    job: CloudRunJobs, backend: CloudRunBackend, image: str | None, service: SharedFields
) -> DesiredJob:
    spec = job.spec
    shared, optional = shared_fields(spec, backend), optional_fields(spec, backend)
    # Only callers may know the required arguments: they are checked only if some are declared.
    args = build(job, (), spec.args, {}) if spec.args else (spec.command,)
    declared = (*optional, *flatten({**vars(shared), "labels": spec.labels}))
    return DesiredJob(
        id=spec.name,
        label=spec.command,
        **ownership_and_note(spec, declared),
        # A job that was created elsewhere under its declared name keeps what the class does not declare.
        initial=KEPT_FIELDS - spec.declared if spec.declared_name else frozenset(),
        # The class's image takes precedence over --image, and --image over DEFAULTS.
        image=getattr(type(job), "image", None) or image or spec.image,
        entrypoint=spec.entrypoint,
        args=(spec.script, *args) if spec.script else args,
        timeout=spec.timeout,
        max_retries=spec.max_retries,
        tasks=spec.tasks,
        labels=spec.labels,
        env_vars={**service.env_vars, **environment(backend), **shared.env_vars},
        cloud_sql={**service.cloud_sql, **shared.cloud_sql},
        vpc={**service.vpc, **shared.vpc},
        volumes=service.volumes,
        **optional,
    )


def ownership_and_note(spec: JobSpec, declared: Iterable[str]) -> dict[str, Any]:
    """Return the fields that both kinds of resources take from the spec."""
    fields = tuple(sorted(declared))
    return {
        "ownership": OwnershipLabel(environment=spec.environment, command=spec.command, fields=fields),
        "note": f"(named {spec.name}: shortened to 63 characters)" if spec.is_shortened else "",
    }


def environment(backend: CloudRunBackend) -> dict[str, Redacted]:
    """Return the variables from which a container takes its settings."""
    keys = ("ENVIRONMENT", "PROJECT", "REGION")
    return {f"{conf.PREFIX}{key}": Redacted(getattr(backend.settings, key.lower())) for key in keys}


def optional_fields(spec: JobSpec, backend: CloudRunBackend) -> dict[str, Any]:
    """Return the fields that stay as they are in the cloud unless they are declared."""
    values = {
        "task_parallelism": spec.task_parallelism,
        "cpu": canonical_cpu(spec.cpu),
        "memory": canonical_memory(spec.memory),
    }
    optional: dict[str, Any] = {name: value for name, value in values.items() if name in spec.declared}
    if account := spec.service_account or backend.service_account:
        optional["service_account"] = account
    return optional


def shared_fields(spec: JobSpec, backend: CloudRunBackend) -> SharedFields:
    return SharedFields(
        env_vars={
            **{name: Redacted(value) for name, value in spec.env_vars.items()},
            **{name: _secret(reference) for name, reference in spec.secrets.items()},
        },
        cloud_sql=dict.fromkeys(spec.cloud_sql, CLOUD_SQL_PATH),
        vpc={name: _vpc_value(name, value, backend) for name, value in (spec.vpc or {}).items()},
    )


def _secret(reference: str) -> Secret:
    name, _, version = reference.partition(":")
    return Secret(name, version or "latest")


def _vpc_value(name: str, value: Any, backend: CloudRunBackend) -> Any:
    if name == "connector" and "/" not in value:
        return f"{backend.parent}/connectors/{value}"
    return tuple(value) if name == "tags" else value
