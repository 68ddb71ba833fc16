"""Read and write a Cloud Run Job's message by the names of `DesiredJob`'s fields, as "image" or "vpc.network"."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from google.cloud.run_v2 import types

from cloudrun_jobs import conf
from cloudrun_jobs.deploy.desired import CLOUD_SQL_PATH, INTERFACE_FIELDS, Secret, SecretFiles, SharedFields
from cloudrun_jobs.deploy.plan import Redacted, flatten
from cloudrun_jobs.spec import canonical_cpu, canonical_memory

EGRESS = {
    "all-traffic": types.VpcAccess.VpcEgress.ALL_TRAFFIC,
    "private-ranges-only": types.VpcAccess.VpcEgress.PRIVATE_RANGES_ONLY,
}
VARIABLE = f"{conf.PREFIX}ENVIRONMENT"  # Of each container that was synced.
# The attributes of messages that are not named like the fields.
ATTRIBUTES = {"tasks": "task_count", "task_parallelism": "parallelism", "entrypoint": "command"}


def read(job: types.Job) -> dict[str, Any]:
    """Return all fields that a command can declare."""
    execution, task = job.template, job.template.template
    container = own_container(task.containers or [types.Container()])
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


def shared(container: types.Container, template: Any) -> SharedFields:
    """Return the fields that jobs and services share; `template` is that of a task or of a revision."""
    cloud_sql: dict[str, str] = {}
    volumes: dict[str, SecretFiles] = {}
    paths = {mount.name: mount.mount_path for mount in container.volume_mounts}
    for volume in template.volumes:
        cloud_sql |= dict.fromkeys(volume.cloud_sql_instance.instances, CLOUD_SQL_PATH)
        if "secret" in volume and volume.name in paths:
            volumes[volume.name] = SecretFiles(paths[volume.name], types.Volume.serialize(volume))
    return SharedFields(
        env_vars={variable.name: _read_variable(variable) for variable in container.env},
        cloud_sql=cloud_sql,
        vpc=dict(_vpc(template.vpc_access)),
        volumes=volumes,
    )


def _read_variable(variable: types.EnvVar) -> Redacted | Secret:
    if "value_source" not in variable:
        return Redacted(variable.value)
    selector = variable.value_source.secret_key_ref
    return Secret(selector.secret, selector.version or "latest")


def _vpc(access: types.VpcAccess) -> Iterator[tuple[str, Any]]:
    if access.connector:
        yield "connector", access.connector
    for interface in access.network_interfaces[:1]:
        values = ((name, getattr(interface, name)) for name in INTERFACE_FIELDS)
        yield from ((name, tuple(value) if name == "tags" else value) for name, value in values if value)
    yield from (("egress", name) for name, value in EGRESS.items() if value == access.egress)


def write(job: types.Job, field: str, value: Any) -> None:
    """Set a field of the message; None removes it."""
    kind, _, name = field.partition(".")
    if kind in WRITERS:
        WRITERS[kind](job, name or kind, value)
        return
    attribute = ATTRIBUTES.get(kind, kind)
    messages = (job.template, job.template.template, _container(job))
    setattr(next(message for message in messages if hasattr(message, attribute)), attribute, value)


def _write_limit(job: types.Job, name: str, value: str | None) -> None:
    resources = _container(job).resources
    resources.limits = _with_item(resources.limits, name, value)


def _write_label(job: types.Job, name: str, value: str | None) -> None:
    job.labels = _with_item(job.labels, name, value)


def _with_item(items: Mapping[str, str], name: str, value: str | None) -> dict[str, str]:
    others = {key: item for key, item in items.items() if key != name}
    return others if value is None else {**others, name: value}


def _write_variable(job: types.Job, name: str, value: Redacted | Secret | None) -> None:
    container = _container(job)
    others = [variable for variable in container.env if variable.name != name]
    container.env = [*others, _variable(name, value)] if value else others


def _variable(name: str, value: Redacted | Secret) -> types.EnvVar:
    if isinstance(value, Redacted):
        return types.EnvVar(name=name, value=value.value)
    selector = types.SecretKeySelector(secret=value.name, version=value.version)
    return types.EnvVar(name=name, value_source=types.EnvVarSource(secret_key_ref=selector))


def _write_vpc(job: types.Job, name: str, value: Any) -> None:
    access = job.template.template.vpc_access
    if name in INTERFACE_FIELDS:
        interfaces = list(access.network_interfaces) or [types.VpcAccess.NetworkInterface()]
        setattr(interfaces[0], name, value)
        empty = types.VpcAccess.NetworkInterface()
        access.network_interfaces = [interface for interface in interfaces if interface != empty]
    else:
        setattr(access, name, EGRESS.get(value) if name == "egress" else value)
    job.template.template.vpc_access = access
    if access == types.VpcAccess():
        del job.template.template.vpc_access


def _write_cloud_sql(job: types.Job, instance: str, value: str | None) -> None:
    task, container = job.template.template, _container(job)
    volume = next(
        (volume for volume in task.volumes if "cloud_sql_instance" in volume), types.Volume(name="cloudsql")
    )
    instances = {*volume.cloud_sql_instance.instances, instance} - (set() if value else {instance})
    _drop_volume(task, container, volume.name)
    if instances:
        volume.cloud_sql_instance = types.CloudSqlInstance(instances=sorted(instances))
        _mount(task, container, volume, CLOUD_SQL_PATH)


def _write_secret_files(job: types.Job, name: str, value: SecretFiles) -> None:
    task, container = job.template.template, _container(job)
    _drop_volume(task, container, name)
    _mount(task, container, types.Volume.deserialize(value.message), value.path)


def _drop_volume(task: types.TaskTemplate, container: types.Container, name: str) -> None:
    task.volumes = [volume for volume in task.volumes if volume.name != name]
    container.volume_mounts = [mount for mount in container.volume_mounts if mount.name != name]


def _mount(task: types.TaskTemplate, container: types.Container, volume: types.Volume, path: str) -> None:
    task.volumes = [*task.volumes, volume]
    container.volume_mounts = [*container.volume_mounts, types.VolumeMount(name=volume.name, mount_path=path)]


def own_container(containers: Sequence[types.Container]) -> types.Container:
    """Return the container with this package's variables, else the first. Others are sidecars."""
    own = (each for each in containers if any(variable.name == VARIABLE for variable in each.env))
    return next(own, containers[0])


def _container(job: types.Job) -> types.Container:
    if not job.template.template.containers:
        job.template.template.containers = [types.Container()]
    return own_container(job.template.template.containers)


WRITERS: dict[str, Callable[[types.Job, str, Any], None]] = {
    "cpu": _write_limit,
    "memory": _write_limit,
    "labels": _write_label,
    "env_vars": _write_variable,
    "vpc": _write_vpc,
    "cloud_sql": _write_cloud_sql,
    "volumes": _write_secret_files,
}
