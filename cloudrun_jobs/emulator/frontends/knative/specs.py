"""Translate the specs of jobs, task templates and containers between v1 and v2."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from google.cloud import run_v2
from google.protobuf import json_format

from cloudrun_jobs.emulator.errors import invalid
from cloudrun_jobs.emulator.frontends.knative.annotations import (
    CLOUD_SQL_VOLUME,
    annotations_to_v1,
    annotations_to_v2,
    other_annotations,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Fields of a container that have the same JSON in v1 and v2.
SAME_CONTAINER_FIELDS = ("ports", "volumeMounts", "livenessProbe", "startupProbe", "dependsOn")
CLIENT_NAME, CLIENT_VERSION = "run.googleapis.com/client-name", "run.googleapis.com/client-version"
# The service sets these annotations on the jobs it returns, and ignores them in an update.
SERVICE_SET_ANNOTATIONS = (
    "run.googleapis.com/creator",
    "run.googleapis.com/lastModifier",
    "run.googleapis.com/operation-id",
)
LOCATION_LABEL = "cloud.googleapis.com/location"


@contextmanager
def readable(kind: str) -> Iterator[None]:
    """Raise INVALID_ARGUMENT if the block cannot read a malformed message; also a decorator."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise invalid(f"Invalid JSON payload received. The {kind} cannot be read: {error!r}.") from error


@readable("job")
def job_to_v2(v1: dict[str, Any]) -> run_v2.Job:
    """Translate a v1 job to v2, or raise INVALID_ARGUMENT if it is malformed."""
    metadata, spec = v1.get("metadata", {}), v1["spec"]["template"]
    annotations = dict(metadata.get("annotations", {}))
    labels = {key: value for key, value in metadata.get("labels", {}).items() if key != LOCATION_LABEL}
    job = run_v2.Job(
        client=annotations.pop(CLIENT_NAME, ""),
        client_version=annotations.pop(CLIENT_VERSION, ""),
        labels=labels,
        annotations={key: value for key, value in annotations.items() if key not in SERVICE_SET_ANNOTATIONS},
        template=_template_to_v2(spec),
    )
    for field in ("startExecutionToken", "runExecutionToken"):
        if field in v1["spec"]:
            name = "start_execution_token" if field.startswith("start") else "run_execution_token"
            setattr(job, name, v1["spec"][field])
    return job


def _template_to_v2(v1: dict[str, Any]) -> run_v2.ExecutionTemplate:
    metadata, spec = v1.get("metadata", {}), v1["spec"]
    annotations = metadata.get("annotations", {})
    task = _task_to_v2(spec["template"]["spec"])
    annotations_to_v2(annotations, task)
    return run_v2.ExecutionTemplate(
        labels=metadata.get("labels", {}),
        annotations=other_annotations(annotations),
        parallelism=int(spec.get("parallelism", 0)),
        task_count=int(spec.get("taskCount", 0)),
        template=task,
    )


def _task_to_v2(v1: dict[str, Any]) -> run_v2.TaskTemplate:
    task = run_v2.TaskTemplate(
        containers=[container_to_v2(container) for container in v1.get("containers", [])],
        service_account=v1.get("serviceAccountName", ""),
        volumes=[volume_to_v2(volume) for volume in v1.get("volumes", [])],
    )
    if "maxRetries" in v1:
        task.max_retries = int(v1["maxRetries"])
    if "timeoutSeconds" in v1:
        task.timeout = timedelta(seconds=int(v1["timeoutSeconds"]))
    return task


def container_to_v2(v1: dict[str, Any]) -> run_v2.Container:
    container = run_v2.Container(
        name=v1.get("name", ""),
        image=v1.get("image", ""),
        command=v1.get("command", []),
        args=v1.get("args", []),
        env=[variable_to_v2(variable) for variable in v1.get("env", [])],
        working_dir=v1.get("workingDir", ""),
        resources=run_v2.ResourceRequirements(limits=v1.get("resources", {}).get("limits", {})),
    )
    same = {field: v1[field] for field in SAME_CONTAINER_FIELDS if field in v1}
    try:
        json_format.ParseDict(same, run_v2.Container.pb(container), ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise ValueError(str(error)) from error
    return container


def variable_to_v2(v1: dict[str, Any]) -> run_v2.EnvVar:
    reference = v1.get("valueFrom", {}).get("secretKeyRef")
    if reference is None:
        return run_v2.EnvVar(name=v1["name"], value=v1.get("value", ""))
    # In v1, `name` is the secret and `key` its version.
    selector = run_v2.SecretKeySelector(secret=reference["name"], version=reference["key"])
    return run_v2.EnvVar(name=v1["name"], value_source=run_v2.EnvVarSource(secret_key_ref=selector))


@readable("overrides")
def overrides_to_v2(v1: dict[str, Any]) -> run_v2.RunJobRequest.Overrides:
    """Translate the overrides of ``gcloud run jobs execute`` to v2."""
    containers = [
        run_v2.RunJobRequest.Overrides.ContainerOverride(
            name=container.get("name", ""),
            args=container.get("args", []),
            env=[variable_to_v2(variable) for variable in container.get("env", [])],
            clear_args=container.get("clearArgs", False),
        )
        for container in v1.get("containerOverrides", [])
    ]
    overrides = run_v2.RunJobRequest.Overrides(
        container_overrides=containers, task_count=int(v1.get("taskCount", 0))
    )
    if "timeoutSeconds" in v1:
        overrides.timeout = timedelta(seconds=int(v1["timeoutSeconds"]))
    return overrides


def job_spec_to_v1(job: run_v2.Job) -> dict[str, Any]:
    """Return the v1 ``spec`` of a job."""
    template = job.template
    spec: dict[str, Any] = {
        "template": {
            # gcloud fails on a template without metadata, even if they would be empty.
            "metadata": {
                "labels": dict(template.labels),
                "annotations": {**template.annotations, **annotations_to_v1(template.template)},
            },
            "spec": {
                "parallelism": template.parallelism,
                "taskCount": template.task_count,
                "template": {"spec": task_spec_to_v1(template.template)},
            },
        }
    }
    if job.start_execution_token:
        spec["startExecutionToken"] = job.start_execution_token
    if job.run_execution_token:
        spec["runExecutionToken"] = job.run_execution_token
    return spec


def task_spec_to_v1(task: run_v2.TaskTemplate | run_v2.Task) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "containers": [container_to_v1(container) for container in task.containers],
        "serviceAccountName": task.service_account,
        **volumes_to_v1(task.volumes),
    }
    if isinstance(task, run_v2.Task) or "max_retries" in task:
        spec["maxRetries"] = task.max_retries
    if task.timeout:
        # Protobuf's JSON format writes a 64-bit number as a string.
        spec["timeoutSeconds"] = str(int(task.timeout.total_seconds()))
    return spec


def container_to_v1(container: run_v2.Container) -> dict[str, Any]:
    v1: dict[str, Any] = {
        "name": container.name,
        "image": container.image,
        "command": list(container.command),
        "args": list(container.args),
        "env": [_variable_to_v1(variable) for variable in container.env],
        "workingDir": container.working_dir,
        "resources": {"limits": dict(container.resources.limits)},
    }
    given = json_format.MessageToDict(run_v2.Container.pb(container))
    v1 |= {field: given[field] for field in SAME_CONTAINER_FIELDS if field in given}
    if mounts := [mount for mount in v1.pop("volumeMounts", []) if mount["name"] != CLOUD_SQL_VOLUME]:
        v1["volumeMounts"] = mounts
    return {key: value for key, value in v1.items() if value or key in ("image", "resources")}


def volume_to_v2(v1: dict[str, Any]) -> run_v2.Volume:
    """Translate a volume of a secret, of memory or of a bucket."""
    volume = run_v2.Volume(name=v1["name"])
    if secret := v1.get("secret"):
        items = [{"path": item["path"], "version": item["key"]} for item in secret.get("items", [])]
        volume.secret = run_v2.SecretVolumeSource(secret=secret["secretName"], items=items)
    elif "emptyDir" in v1:
        volume.empty_dir = run_v2.EmptyDirVolumeSource(
            medium="MEMORY", size_limit=v1["emptyDir"].get("sizeLimit", "")
        )
    elif bucket := v1.get("csi", {}).get("volumeAttributes", {}).get("bucketName"):
        volume.gcs = run_v2.GCSVolumeSource(bucket=bucket, read_only=v1["csi"].get("readOnly", False))
    else:
        raise invalid(f"The emulator does not support the kind of the volume {v1['name']!r}.")
    return volume


def volumes_to_v1(volumes: Iterable[run_v2.Volume]) -> dict[str, Any]:
    """Return the field `volumes` of a v1 spec, if there is a volume that is not an annotation."""
    found = [_volume_to_v1(volume) for volume in volumes if not volume.cloud_sql_instance.instances]
    return {"volumes": found} if found else {}


def _volume_to_v1(volume: run_v2.Volume) -> dict[str, Any]:
    if volume.secret.secret:
        items = [{"path": item.path, "key": item.version} for item in volume.secret.items]
        return {"name": volume.name, "secret": {"secretName": volume.secret.secret, "items": items}}
    if volume.gcs.bucket:
        attributes = {"volumeAttributes": {"bucketName": volume.gcs.bucket}, "readOnly": volume.gcs.read_only}
        return {"name": volume.name, "csi": {"driver": "gcsfuse.run.googleapis.com", **attributes}}
    return {"name": volume.name, "emptyDir": {"medium": "Memory", "sizeLimit": volume.empty_dir.size_limit}}


def _variable_to_v1(variable: run_v2.EnvVar) -> dict[str, Any]:
    reference = variable.value_source.secret_key_ref
    if not reference.secret:
        return {"name": variable.name, "value": variable.value}
    key = {"name": reference.secret, "key": reference.version}
    return {"name": variable.name, "valueFrom": {"secretKeyRef": key}}
