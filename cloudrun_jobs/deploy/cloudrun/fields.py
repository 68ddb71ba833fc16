"""Read and write the fields of a Cloud Run Job's message, by the names of `DesiredJob`'s fields.

Each "env_vars.NAME", "vpc.network" or "cloud_sql.INSTANCE" is a field of its own. The job runs in the first
container; others are sidecars.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from google.cloud.run_v2.types import (
    CloudSqlInstance,
    Container,
    EnvVar,
    EnvVarSource,
    Job,
    SecretKeySelector,
    TaskTemplate,
    Volume,
    VolumeMount,
    VpcAccess,
)

from cloudrun_jobs.deploy.desired import (
    CLOUD_SQL_PATH,
    INTERFACE_FIELDS,
    Secret,
    SecretFiles,
    SharedFields,
)
from cloudrun_jobs.deploy.plan import Redacted, flatten
from cloudrun_jobs.spec import canonical_cpu, canonical_memory

EGRESS = {
    "all-traffic": VpcAccess.VpcEgress.ALL_TRAFFIC,
    "private-ranges-only": VpcAccess.VpcEgress.PRIVATE_RANGES_ONLY,
}


# The attributes of messages that are not named like the fields.
ATTRIBUTES = {"tasks": "task_count", "task_parallelism": "parallelism", "entrypoint": "command"}


def read(job: Job) -> dict[str, Any]:
    """Return all fields that a command can declare."""
    execution, task = job.template, job.template.template
    container = task.containers[0] if task.containers else Container()
    return flatten(
        {
            "tasks": execution.task_count,
            "task_parallelism": execution.parallelism or None,
            "timeout": task.timeout,
            "max_retries": task.max_retries,
            "service_account": task.service_account or None,
            "image": container.image,
            "entrypoint": tuple(container.command),
            "args": tuple(container.args),
            "cpu": canonical_cpu(container.resources.limits.get("cpu", "")),
            "memory": canonical_memory(container.resources.limits.get("memory", "")),
            "labels": dict(job.labels),
            **vars(shared(container, task)),
        }
    )


def shared(container: Container, template: Any) -> SharedFields:
    """Return the fields that jobs and services share; `template` is that of a task or of a revision."""
    cloud_sql: dict[str, str] = {}
    volumes: dict[str, SecretFiles] = {}
    paths = {mount.name: mount.mount_path for mount in container.volume_mounts}
    for volume in template.volumes:
        cloud_sql |= dict.fromkeys(volume.cloud_sql_instance.instances, CLOUD_SQL_PATH)
        if "secret" in volume and volume.name in paths:
            volumes[volume.name] = SecretFiles(paths[volume.name], Volume.serialize(volume))
    return SharedFields(
        env_vars={variable.name: _read_variable(variable) for variable in container.env},
        cloud_sql=cloud_sql,
        vpc=dict(_vpc(template.vpc_access)),
        volumes=volumes,
    )


def _read_variable(variable: EnvVar) -> Redacted | Secret:
    if "value_source" not in variable:
        return Redacted(variable.value)
    selector = variable.value_source.secret_key_ref
    return Secret(selector.secret, selector.version or "latest")


def _vpc(access: VpcAccess) -> Iterator[tuple[str, Any]]:
    if access.connector:
        yield "connector", access.connector
    for interface in access.network_interfaces[:1]:
        values = ((name, getattr(interface, name)) for name in INTERFACE_FIELDS)
        yield from ((name, tuple(value) if name == "tags" else value) for name, value in values if value)
    yield from (("egress", name) for name, value in EGRESS.items() if value == access.egress)


def write(job: Job, field: str, value: Any) -> None:
    """Set a field of the message; None removes it."""
    kind, _, name = field.partition(".")
    if kind in WRITERS:
        WRITERS[kind](job, name or kind, value)
        return
    attribute = ATTRIBUTES.get(kind, kind)
    messages = (job.template, job.template.template, _container(job))
    setattr(next(message for message in messages if hasattr(message, attribute)), attribute, value)


def _write_limit(job: Job, name: str, value: str | None) -> None:
    resources = _container(job).resources
    resources.limits = _with_item(resources.limits, name, value)


def _write_label(job: Job, name: str, value: str | None) -> None:
    job.labels = _with_item(job.labels, name, value)


def _with_item(items: Mapping[str, str], name: str, value: str | None) -> dict[str, str]:
    others = {key: item for key, item in items.items() if key != name}
    return others if value is None else {**others, name: value}


def _write_variable(job: Job, name: str, value: Redacted | Secret | None) -> None:
    container = _container(job)
    others = [variable for variable in container.env if variable.name != name]
    container.env = [*others, _variable(name, value)] if value else others


def _variable(name: str, value: Redacted | Secret) -> EnvVar:
    if isinstance(value, Redacted):
        return EnvVar(name=name, value=value.value)
    selector = SecretKeySelector(secret=value.name, version=value.version)
    return EnvVar(name=name, value_source=EnvVarSource(secret_key_ref=selector))


def _write_vpc(job: Job, name: str, value: Any) -> None:
    access = job.template.template.vpc_access
    if name == "egress":
        access.egress = EGRESS.get(value, VpcAccess.VpcEgress.VPC_EGRESS_UNSPECIFIED)  # type: ignore[assignment]
    elif name == "connector":
        access.connector = value or ""
    else:
        interfaces = list(access.network_interfaces) or [VpcAccess.NetworkInterface()]
        setattr(interfaces[0], name, value or ([] if name == "tags" else ""))
        empty = VpcAccess.NetworkInterface()
        access.network_interfaces = [interface for interface in interfaces if interface != empty]
    job.template.template.vpc_access = access
    if access == VpcAccess():
        del job.template.template.vpc_access


def _write_cloud_sql(job: Job, instance: str, value: str | None) -> None:
    task, container = job.template.template, _container(job)
    volume = next((volume for volume in task.volumes if "cloud_sql_instance" in volume), Volume(name="cloudsql"))
    instances = {*volume.cloud_sql_instance.instances, instance} - (set() if value else {instance})
    _drop_volume(task, container, volume.name)
    if instances:
        volume.cloud_sql_instance = CloudSqlInstance(instances=sorted(instances))
        _mount(task, container, volume, CLOUD_SQL_PATH)


def _write_secret_files(job: Job, name: str, value: SecretFiles) -> None:
    task, container = job.template.template, _container(job)
    _drop_volume(task, container, name)
    _mount(task, container, Volume.deserialize(value.message), value.path)


def _drop_volume(task: TaskTemplate, container: Container, name: str) -> None:
    task.volumes = [volume for volume in task.volumes if volume.name != name]
    container.volume_mounts = [mount for mount in container.volume_mounts if mount.name != name]


def _mount(task: TaskTemplate, container: Container, volume: Volume, path: str) -> None:
    task.volumes = [*task.volumes, volume]
    container.volume_mounts = [*container.volume_mounts, VolumeMount(name=volume.name, mount_path=path)]


def _container(job: Job) -> Container:
    if not job.template.template.containers:
        job.template.template.containers = [Container()]
    return job.template.template.containers[0]


WRITERS: dict[str, Callable[[Job, str, Any], None]] = {
    "cpu": _write_limit,
    "memory": _write_limit,
    "labels": _write_label,
    "env_vars": _write_variable,
    "vpc": _write_vpc,
    "cloud_sql": _write_cloud_sql,
    "volumes": _write_secret_files,
}
