"""The fields of v1 and v2, side by side: the one table of the translation in either direction.

A row is the name in v1, its type, the path in the message of v2, and the codec if the values differ. A row without
a path is a field that Cloud Run ignores, or that only the service sets.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.cloud import run_v2

from cloudrun_jobs.emulator import names
from cloudrun_jobs.emulator.errors import invalid
from cloudrun_jobs.emulator.frontends.knative.fields import (
    BOOLEAN,
    FLAG_TEXT,
    HOURS,
    IGNORED,
    INTEGER,
    JSON_LIST,
    JSON_LISTS,
    JSON_MAP,
    LONG,
    MAP,
    NUMBER_TEXT,
    SECONDS,
    SECONDS_TEXT,
    TEXT,
    TEXTS,
    UNSUPPORTED,
    Aliases,
    Annotations,
    Codec,
    Field,
    Inline,
    Items,
    JsonMessages,
    Labels,
    Listing,
    Message,
    Optional,
    Unexpected,
    copied,
    enum,
    parsed,
)

RUN, SERVING, SCALING = "run.googleapis.com/", "serving.knative.dev/", "autoscaling.knative.dev/"
CREATOR, LAST_MODIFIER = "creator", "lastModifier"
SECRETS = f"{RUN}secrets"
GCS_DRIVER, SQL_DRIVER = "gcsfuse.run.googleapis.com", "cloudsql.run.googleapis.com"
DRIVERS = {GCS_DRIVER: ("bucketName", "mountOptions"), SQL_DRIVER: ("instances",)}
# The volume of the sockets of Cloud SQL, which v1 has as an annotation.
CLOUD_SQL = f"{RUN}cloudsql-instances"
CLOUD_SQL_VOLUME, CLOUD_SQL_MOUNT_PATH = "cloudsql", "/cloudsql"
# The service sets these annotations, and ignores them in what a client sends.
SET_BY_SERVICE = frozenset(
    [RUN + name for name in (CREATOR, LAST_MODIFIER, "operation-id", "urls", "ingress-status")]
    + [SERVING + name for name in (CREATOR, LAST_MODIFIER)]
)
LAUNCH_STAGES = run_v2.Job.pb().DESCRIPTOR.fields_by_name["launch_stage"].enum_type.values_by_name
# The general availability is no annotation.
STAGES = {name: value.number for name, value in LAUNCH_STAGES.items() if name != "GA" and value.number}


@dataclass(frozen=True)
class Secret(Field):
    """The name of a secret; that of another project's secret is an alias in v1."""

    def get(self, pb: Any) -> Any:
        name = super().get(pb)
        return _alias(name) if name and "/" in name else name

    def put(self, pb: Any, value: Any, aliases: Aliases) -> None:
        super().put(pb, aliases.get(value, value), aliases)


@dataclass(frozen=True)
class SecretAliases(Field):
    """The aliases of all secrets of other projects in a template."""

    def get(self, pb: Any) -> str | None:
        found = sorted({_numbered(name) for name in _secrets(self._template(pb)) if "/" in name})
        return ",".join(f"{_alias(name)}:{name}" for name in found) or None

    def put(self, pb: Any, value: Any, aliases: Aliases) -> None:
        """Do nothing: the fields of the secrets have the names themselves."""

    def _template(self, pb: Any) -> Any:
        return getattr(pb, self.path) if self.path else pb


@dataclass(frozen=True)
class EachContainer(Field):
    """One flag of the revision in v1, and one of each container in v2."""

    absent: bool = False

    def get(self, pb: Any) -> str | None:
        flags = [getattr(container.resources, self.path) for container in pb.containers]
        found = all(flags) if self.absent else any(flags)
        return None if found == self.absent else FLAG_TEXT.render(found)

    def put(self, pb: Any, value: Any, aliases: Aliases) -> None:
        flag = self.absent if value is None else parsed(FLAG_TEXT, value)
        for container in pb.containers:
            setattr(container.resources, self.path, flag)


@dataclass(frozen=True)
class ByContainer(Field):
    """A JSON object in v1 with one value for each named container, which is a field of the container in v2."""

    codec: Codec = JSON_MAP
    template: str = ""

    def get(self, pb: Any) -> str | None:
        values = {each.name: Field(self.name, path=self.path).get(each) for each in self._containers(pb)}
        found = {name: value for name, value in values.items() if value is not None}
        return json.dumps(found) if found else None

    def put(self, pb: Any, value: Any, aliases: Aliases) -> None:
        given = parsed(self.codec, value) if value else {}
        containers = {each.name: each for each in self._containers(pb)}
        if unknown := given.keys() - containers.keys():
            raise Unexpected(f"the names of containers, got {min(unknown)!r}")
        for name, container in containers.items():
            Field(self.name, path=self.path).put(container, given.get(name), aliases)

    def _containers(self, pb: Any) -> Any:
        return (getattr(pb, self.template) if self.template else pb).containers


@dataclass(frozen=True)
class Containers(Items):
    """The containers of a template, without the mounts of Cloud SQL: v1 has an annotation instead."""

    def get(self, pb: Any) -> list[dict[str, Any]] | None:
        shown = copied(pb)
        _take_cloud_sql_mounts(shown)
        return super().get(shown)

    def overlay(self, pb: Any, value: Any, aliases: Aliases) -> None:
        mounts, origins = _take_cloud_sql_mounts(pb), self._origins(value or (), pb.containers)
        super().overlay(pb, value, aliases)
        kept = [() if origin is None else mounts[origin] for origin in origins]
        for container, own in zip(pb.containers, kept, strict=True):
            for index, mount in own:
                container.volume_mounts.insert(index, mount)
        if any(mounts) and not any(kept):  # The container that had the mount is gone.
            _mount_cloud_sql(pb)


@dataclass(frozen=True)
class CloudSql(Field):
    """The instances of Cloud SQL: an annotation in v1, a volume and its mount in v2."""

    def get(self, pb: Any) -> str | None:
        volume = next(filter(_is_cloud_sql, self._template(pb).volumes), None)
        return None if volume is None else ",".join(volume.cloud_sql_instance.instances) or None

    def put(self, pb: Any, value: Any, aliases: Aliases) -> None:
        if not value:
            return  # The row of the absent annotation has removed the volume.
        template = self._template(pb)
        volume = next(filter(_is_cloud_sql, template.volumes), None)
        if volume is None:
            volume = template.volumes.add(name=CLOUD_SQL_VOLUME)
            _mount_cloud_sql(template)
        volume.cloud_sql_instance.instances[:] = value.split(",")

    def _template(self, pb: Any) -> Any:
        return getattr(pb, self.path) if self.path else pb


@dataclass(frozen=True)
class AbsentCloudSql(CloudSql):
    """The volume and the mounts of an annotation that is gone. They go before v1 can use their names."""

    def overlay(self, pb: Any, value: Any, aliases: Aliases) -> None:
        if not (value or {}).get("annotations", {}).get(CLOUD_SQL) and self.get(pb) is not None:
            template = self._template(pb)
            _take_cloud_sql_mounts(template)
            _take(template.volumes, _is_cloud_sql)


@dataclass(frozen=True)
class Csi(Field):
    """A volume of a bucket or of Cloud SQL, which v1 has as a driver with attributes."""

    def get(self, pb: Any) -> dict[str, Any] | None:
        if pb.HasField("gcs"):
            attributes = {"bucketName": pb.gcs.bucket, "mountOptions": ",".join(pb.gcs.mount_options)}
            return _driver(GCS_DRIVER, attributes, read_only=pb.gcs.read_only)
        if pb.HasField("cloud_sql_instance"):
            return _driver(SQL_DRIVER, {"instances": ",".join(pb.cloud_sql_instance.instances)})
        return None

    def put(self, pb: Any, value: Any, aliases: Aliases) -> None:
        if value is None:
            pb.ClearField("gcs")
            pb.ClearField("cloud_sql_instance")
            return
        driver, attributes = value.get("driver", ""), value.get("volumeAttributes", {})
        if driver not in DRIVERS:
            raise Unexpected(f"the driver {' or '.join(DRIVERS)}")
        if attributes.keys() - DRIVERS[driver]:
            raise Unexpected(f"no volumeAttributes but {', '.join(DRIVERS[driver])}")
        if driver == SQL_DRIVER:
            if value.get("readOnly"):
                raise Unexpected(f"no readOnly with the driver {SQL_DRIVER}")
            pb.cloud_sql_instance.instances[:] = _split(attributes.get("instances", ""))
        else:
            pb.gcs.bucket, pb.gcs.read_only = attributes.get("bucketName", ""), value.get("readOnly", False)
            pb.gcs.mount_options[:] = _split(attributes.get("mountOptions", ""))


@dataclass(frozen=True)
class NodeSelector(Field):
    """The accelerator: a label of the node in v1."""

    def get(self, pb: Any) -> dict[str, str] | None:
        return {f"{RUN}accelerator": pb.node_selector.accelerator} if pb.HasField("node_selector") else None

    def put(self, pb: Any, value: Any, aliases: Aliases) -> None:
        pb.ClearField("node_selector")
        for name, accelerator in (value or {}).items():
            if name != f"{RUN}accelerator":
                raise invalid(f"spec.nodeSelector: Unsupported node selector {name!r}.")
            pb.node_selector.accelerator = accelerator


@dataclass(frozen=True)
class Latest(Field):
    """Whether a share of the traffic goes to the latest revision: a type in v2, whose 2 is a named revision."""

    def get(self, pb: Any) -> bool | None:
        return True if pb.type_ == 1 else None

    def overlay(self, pb: Any, value: Any, aliases: Aliases) -> None:
        if not pb.ByteSize() or self.get(pb) != value:
            pb.type_ = 1 if value else 2


@dataclass(frozen=True)
class Policy(Field):
    """The policy of Binary Authorization: ``default``, or the name of another one."""

    def get(self, pb: Any) -> str | None:
        return "default" if pb.binary_authorization.use_default else super().get(pb)

    def put(self, pb: Any, value: Any, aliases: Aliases) -> None:
        if value == "default":
            pb.binary_authorization.use_default = True
            return
        Field(self.name, path="binary_authorization.use_default").put(pb, None, aliases)
        super().put(pb, value, aliases)


def _alias(name: str) -> str:
    return f"{name.rpartition('/')[2][:5]}-{uuid.uuid5(uuid.NAMESPACE_URL, _numbered(name))}"


def _numbered(name: str) -> str:
    """Return the name of a secret with the number of its project, which gcloud expects in an alias."""
    project, _, secret = name.removeprefix("projects/").partition("/")
    return f"projects/{names.project_number(project)}/{secret}"


def aliases_of(annotations: dict[str, str]) -> Aliases:
    """Return the secrets of other projects by their aliases."""
    pairs = [pair.partition(":")[::2] for pair in _split(annotations.get(SECRETS, ""))]
    return {alias.strip(): name.strip() for alias, name in pairs}


def _secrets(template: Any) -> list[str]:
    variables = [variable for container in template.containers for variable in container.env]
    return [variable.value_source.secret_key_ref.secret for variable in variables] + [
        volume.secret.secret for volume in template.volumes
    ]


def _split(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def _is_cloud_sql(volume: Any) -> bool:
    return bool(volume.name == CLOUD_SQL_VOLUME and volume.HasField("cloud_sql_instance"))


def _take_cloud_sql_mounts(template: Any) -> list[list[tuple[int, Any]]]:
    """Remove the mounts of the volume of Cloud SQL; return those of each container with their indexes."""
    if not any(map(_is_cloud_sql, template.volumes)):
        return [[] for _ in template.containers]
    return [
        _take(container.volume_mounts, lambda mount: mount.name == CLOUD_SQL_VOLUME)
        for container in template.containers
    ]


def _mount_cloud_sql(template: Any) -> None:
    for container in template.containers[:1]:
        container.volume_mounts.add(name=CLOUD_SQL_VOLUME, mount_path=CLOUD_SQL_MOUNT_PATH)


def _take(items: Any, is_taken: Callable[[Any], bool]) -> list[tuple[int, Any]]:
    """Remove items from a list, and return them with their indexes."""
    taken = [(index, copied(each)) for index, each in enumerate(items) if is_taken(each)]
    for index, _ in reversed(taken):
        del items[index]
    return taken


def _driver(name: str, attributes: dict[str, str], *, read_only: bool = False) -> dict[str, Any]:
    given = {key: value for key, value in attributes.items() if value}
    found = {"driver": name, "readOnly": read_only, "volumeAttributes": given}
    return {key: value for key, value in found.items() if value}


# Containers and volumes.

SECRET_KEY = Message(
    "SecretKeySelector",
    (
        Secret("name", TEXT, "secret"),
        Field("key", TEXT, "version"),
        Field("optional", UNSUPPORTED),
        Field("localObjectReference", UNSUPPORTED),
    ),
)
ENV_SOURCE = Message(
    "EnvVarSource",
    (Optional("secretKeyRef", SECRET_KEY, "secret_key_ref"), Field("configMapKeyRef", UNSUPPORTED)),
)
ENV = Message(
    "EnvVar",
    (
        Field("name", TEXT, "name"),
        Optional("valueFrom", ENV_SOURCE, "value_source"),
        Field("value", TEXT, "value"),
    ),
    one_of=("value", "valueFrom"),
)
HEADER = Message("HTTPHeader", (Field("name", TEXT, "name"), Field("value", TEXT, "value")))
HTTP_GET = Message(
    "HTTPGetAction",
    (
        Field("path", TEXT, "path"),
        Field("port", INTEGER, "port"),
        Items("httpHeaders", Listing(HEADER), "http_headers", key="name"),
        Field("host", UNSUPPORTED),
        Field("scheme", UNSUPPORTED),
    ),
)
TCP_SOCKET = Message("TCPSocketAction", (Field("port", INTEGER, "port"), Field("host", UNSUPPORTED)))
GRPC = Message("GRPCAction", (Field("port", INTEGER, "port"), Field("service", TEXT, "service")))
PROBE = Message(
    "Probe",
    (
        Field("initialDelaySeconds", INTEGER, "initial_delay_seconds"),
        Field("timeoutSeconds", INTEGER, "timeout_seconds"),
        Field("periodSeconds", INTEGER, "period_seconds"),
        Field("failureThreshold", INTEGER, "failure_threshold"),
        Field("successThreshold", INTEGER),
        Optional("httpGet", HTTP_GET, "http_get"),
        Optional("tcpSocket", TCP_SOCKET, "tcp_socket"),
        Optional("grpc", GRPC, "grpc"),
        Field("exec", UNSUPPORTED),
    ),
    one_of=("httpGet", "tcpSocket", "grpc"),
)
PORT = Message(
    "ContainerPort",
    (
        Field("name", TEXT, "name"),
        Field("containerPort", INTEGER, "container_port"),
        Field("protocol", TEXT),
    ),
)
MOUNT = Message(
    "VolumeMount",
    (
        Field("name", TEXT, "name"),
        Field("mountPath", TEXT, "mount_path"),
        Field("subPath", TEXT, "sub_path"),
        Field("readOnly", BOOLEAN),
    ),
)
RESOURCES = Message("ResourceRequirements", (Field("limits", MAP, "limits"), Field("requests", MAP)))
PROCESS = (
    Field("name", TEXT, "name"),
    Field("image", TEXT, "image"),
    Field("command", TEXTS, "command"),
    Field("args", TEXTS, "args"),
    Items("env", Listing(ENV), "env", key="name"),
    Field("workingDir", TEXT, "working_dir"),
    Items("volumeMounts", Listing(MOUNT), "volume_mounts", key="mountPath"),
)
CONTAINER = Message(
    "Container",
    (
        *PROCESS,
        Inline("resources", RESOURCES, "resources"),
        Items("ports", Listing(PORT), "ports", key="containerPort"),
        Optional("livenessProbe", PROBE, "liveness_probe"),
        Optional("startupProbe", PROBE, "startup_probe"),
        Optional("readinessProbe", PROBE, "readiness_probe"),
        Field("sandboxLauncher", BOOLEAN, "sandbox_launcher"),
        Field("envFrom", UNSUPPORTED),
        Field("securityContext", UNSUPPORTED),
        Field("imagePullPolicy", TEXT),
        Field("terminationMessagePath", TEXT),
        Field("terminationMessagePolicy", TEXT),
    ),
)
SANDBOX = Message("SandboxTemplate", PROCESS)
SANDBOXES = Message("SandboxConfiguration", (Items("templates", Listing(SANDBOX), "templates", key="name"),))
KEY_TO_PATH = Message(
    "KeyToPath", (Field("path", TEXT, "path"), Field("key", TEXT, "version"), Field("mode", INTEGER, "mode"))
)
SECRET_VOLUME = Message(
    "SecretVolumeSource",
    (
        Secret("secretName", TEXT, "secret"),
        Items("items", Listing(KEY_TO_PATH), "items", key="path"),
        Field("defaultMode", INTEGER, "default_mode"),
        Field("optional", UNSUPPORTED),
    ),
)
EMPTY_DIR = Message(
    "EmptyDirVolumeSource",
    (
        Field("medium", TEXT, "medium", enum({"": 0, "Memory": 1, "Disk": 2})),
        Field("sizeLimit", TEXT, "size_limit"),
    ),
)
NFS = Message(
    "NFSVolumeSource",
    (
        Field("server", TEXT, "server"),
        Field("path", TEXT, "path"),
        Field("readOnly", BOOLEAN, "read_only"),
    ),
)
CSI = Message(
    "CSIVolumeSource",
    (Field("driver"), Field("readOnly", BOOLEAN), Field("volumeAttributes", MAP)),
)
VOLUME = Message(
    "Volume",
    (
        Field("name", TEXT, "name"),
        Optional("secret", SECRET_VOLUME, "secret"),
        Optional("emptyDir", EMPTY_DIR, "empty_dir"),
        Optional("nfs", NFS, "nfs"),
        Csi("csi", CSI),
        Optional("filestore", Message("FilestoreVolumeSource", (Field("volume", TEXT, "volume"),)), "filestore"),
        Field("configMap", UNSUPPORTED),
    ),
    one_of=("secret", "emptyDir", "nfs", "csi", "filestore"),
)
POD = (
    Containers("containers", Listing(CONTAINER), "containers", key="name"),
    Items("volumes", Listing(VOLUME), "volumes", key="name", is_hidden=_is_cloud_sql),
    Field("serviceAccountName", TEXT, "service_account"),
    NodeSelector("nodeSelector", MAP),
    Optional("sandboxes", SANDBOXES, "sandboxes"),
)

# Metadata.

CLIENT = (Field(f"{RUN}client-name", TEXT, "client"), Field(f"{RUN}client-version", TEXT, "client_version"))
STAGE = Field(f"{RUN}launch-stage", TEXT, "launch_stage", enum(STAGES))
AUTHORIZATION = (
    Policy(f"{RUN}binary-authorization", TEXT, "binary_authorization.policy"),
    Field(f"{RUN}binary-authorization-breakglass", TEXT, "binary_authorization.breakglass_justification"),
)
EGRESS = {"all-traffic": 1, "all": 1, "private-ranges-only": 2}


def _pod_annotations(prefix: str = "") -> tuple[Field, ...]:
    """Return the annotations of any template, which is at this path in the message."""
    at = f"{prefix}." if prefix else ""
    return (
        CloudSql(CLOUD_SQL, TEXT, prefix),
        SecretAliases(SECRETS, TEXT, prefix),
        ByContainer(f"{RUN}container-dependencies", TEXT, "depends_on", JSON_LISTS, prefix),
        ByContainer(f"{RUN}base-images", TEXT, "base_image_uri", template=prefix),
        Field(f"{RUN}vpc-access-connector", TEXT, f"{at}vpc_access.connector"),
        Field(f"{RUN}vpc-access-egress", TEXT, f"{at}vpc_access.egress", enum(EGRESS)),
        JsonMessages(f"{RUN}network-interfaces", TEXT, f"{at}vpc_access.network_interfaces"),
        Field(f"{RUN}encryption-key", TEXT, f"{at}encryption_key"),
        Field(f"{RUN}gpu-zonal-redundancy-disabled", TEXT, f"{at}gpu_zonal_redundancy_disabled", FLAG_TEXT),
    )


def _process_annotations(prefix: str = "") -> tuple[Field, ...]:
    """Return the annotations of a template of tasks or of a service's revisions."""
    at = f"{prefix}." if prefix else ""
    identity, environments = f"{at}workload_identity_config", {"gen1": 1, "gen2": 2}
    return (
        *_pod_annotations(prefix),
        Field(f"{RUN}execution-environment", TEXT, f"{at}execution_environment", enum(environments)),
        Field(f"{RUN}identity", TEXT, f"{identity}.identity"),
        Field(f"{RUN}enable-workload-certificate", TEXT, f"{identity}.identity_certificate_enabled", FLAG_TEXT),
    )


REVOCATIONS = enum({"prevent-new": 1, "shut-down": 2})
INSTANCE_ANNOTATIONS = (
    *CLIENT,
    Field(f"{RUN}post-key-revocation-action-type", TEXT, "encryption_key_revocation_action", REVOCATIONS),
    Field(f"{RUN}encryption-key-shutdown-hours", TEXT, "encryption_key_shutdown_duration", HOURS),
    Field(f"{RUN}mesh", TEXT, "service_mesh.mesh"),
)
SERVICE_ANNOTATIONS = (
    *CLIENT,
    STAGE,
    *AUTHORIZATION,
    Field(f"{RUN}description", TEXT, "description"),
    Field(
        f"{RUN}ingress",
        TEXT,
        "ingress",
        enum({"all": 1, "internal": 2, "internal-and-cloud-load-balancing": 3, "none": 4}),
    ),
    Field(f"{RUN}minScale", TEXT, "scaling.min_instance_count", NUMBER_TEXT),
    Field(f"{RUN}maxScale", TEXT, "scaling.max_instance_count", NUMBER_TEXT),
    Field(f"{RUN}scalingMode", TEXT, "scaling.scaling_mode", enum({"automatic": 1, "manual": 2})),
    Field(f"{RUN}manualInstanceCount", TEXT, "scaling.manual_instance_count", NUMBER_TEXT),
    Field(f"{RUN}custom-audiences", TEXT, "custom_audiences", JSON_LIST),
    Field(f"{RUN}default-url-disabled", TEXT, "default_uri_disabled", FLAG_TEXT),
    Field(f"{RUN}invoker-iam-disabled", TEXT, "invoker_iam_disabled", FLAG_TEXT),
    Field(f"{RUN}iap-enabled", TEXT, "iap_enabled", FLAG_TEXT),
    Field(f"{RUN}build-base-image", TEXT, "build_config.base_image"),
    Field(f"{RUN}build-enable-automatic-updates", TEXT, "build_config.enable_automatic_updates", FLAG_TEXT),
    Field(f"{RUN}build-environment-variables", TEXT, "build_config.environment_variables", JSON_MAP),
    Field(f"{RUN}build-function-target", TEXT, "build_config.function_target"),
    Field(f"{RUN}build-image-uri", TEXT, "build_config.image_uri"),
    Field(f"{RUN}build-name", TEXT, "build_config.name"),
    Field(f"{RUN}build-service-account", TEXT, "build_config.service_account"),
    Field(f"{RUN}build-source-location", TEXT, "build_config.source_location"),
    Field(f"{RUN}build-worker-pool", TEXT, "build_config.worker_pool"),
)
REVISION_ANNOTATIONS = (
    *INSTANCE_ANNOTATIONS,
    *_process_annotations(),
    Field(f"{SCALING}minScale", TEXT, "scaling.min_instance_count", NUMBER_TEXT),
    Field(f"{SCALING}maxScale", TEXT, "scaling.max_instance_count", NUMBER_TEXT),
    Field(f"{RUN}sessionAffinity", TEXT, "session_affinity", FLAG_TEXT),
    EachContainer(f"{RUN}cpu-throttling", TEXT, "cpu_idle", absent=True),
    EachContainer(f"{RUN}startup-cpu-boost", TEXT, "startup_cpu_boost"),
)
POOL_ANNOTATIONS = (
    *CLIENT,
    STAGE,
    *AUTHORIZATION,
    Field(f"{RUN}description", TEXT, "description"),
    Field(f"{RUN}custom-audiences", TEXT, "custom_audiences", JSON_LIST),
    Field(f"{RUN}manualInstanceCount", TEXT, "scaling.manual_instance_count", NUMBER_TEXT),
)
SET_METADATA = (
    Field("namespace"),
    Field("uid", IGNORED),
    Field("generation", INTEGER),
    Field("resourceVersion"),
    Field("selfLink", IGNORED),
    Field("creationTimestamp", IGNORED),
    Field("deletionTimestamp", IGNORED),
    Field("deletionGracePeriodSeconds", INTEGER),
    Field("clusterName"),
    Field("generateName"),
    Field("finalizers", TEXTS),
    Field("ownerReferences", IGNORED),
)


def _metadata(annotations: tuple[Field, ...], name: str = "") -> Message:
    return Message(
        "ObjectMeta",
        (
            Field("name", TEXT, name),
            Labels("labels", MAP, "labels"),
            Annotations("annotations", MAP, rows=annotations, set_by_service=SET_BY_SERVICE),
            *SET_METADATA,
        ),
    )


def _template(name: str, metadata: Message, spec: Message, pod: str = "") -> Message:
    # The containers come before the annotations, some of which are fields of theirs.
    return Message(
        name, (AbsentCloudSql("metadata", MAP, pod), Inline("spec", spec), Inline("metadata", metadata))
    )


def _resource(name: str, annotations: tuple[Field, ...], spec: Message) -> Message:
    return Message(
        name,
        (
            Field("apiVersion"),
            Field("kind"),
            Inline("metadata", _metadata(annotations)),
            Inline("spec", spec),
            Field("status", IGNORED),
        ),
    )


# Jobs, executions and tasks.

TASK_SPEC = Message(
    "TaskSpec",
    (
        *POD,
        Field("maxRetries", INTEGER, "max_retries"),
        Field("timeoutSeconds", LONG, "timeout", SECONDS_TEXT),
    ),
)
TASK_TEMPLATE = Message("TaskTemplateSpec", (Inline("spec", TASK_SPEC),))


def _execution_spec(delay: str = "") -> Message:
    return Message(
        "ExecutionSpec",
        (
            Field("parallelism", INTEGER, "parallelism"),
            Field("taskCount", INTEGER, "task_count"),
            Field("delayExecution", BOOLEAN, delay),
            Inline("template", TASK_TEMPLATE, "template"),
        ),
    )


EXECUTION_TEMPLATE = _template(
    "ExecutionTemplateSpec",
    _metadata((*CLIENT, *_process_annotations("template"))),
    _execution_spec("delay_execution"),
    "template",
)
JOB_SPEC = Message(
    "JobSpec",
    (
        Inline("template", EXECUTION_TEMPLATE, "template"),
        Field("startExecutionToken", TEXT, "start_execution_token"),
        Field("runExecutionToken", TEXT, "run_execution_token"),
    ),
)
JOB = _resource("Job", (*CLIENT, STAGE, *AUTHORIZATION), JOB_SPEC)
EXECUTION = _resource("Execution", (*CLIENT, STAGE, *_process_annotations("template")), _execution_spec())
TASK = _resource("Task", _process_annotations(), TASK_SPEC)

OVERRIDES = Message(
    "Overrides",
    (
        Items(
            "containerOverrides",
            Listing(
                Message(
                    "ContainerOverride",
                    (
                        Field("name", TEXT, "name"),
                        Field("args", TEXTS, "args"),
                        Items("env", Listing(ENV), "env", key="name"),
                        Field("clearArgs", BOOLEAN, "clear_args"),
                    ),
                )
            ),
            "container_overrides",
            key="name",
        ),
        Field("taskCount", INTEGER, "task_count"),
        Field("timeoutSeconds", INTEGER, "timeout", SECONDS),
        Field("delayExecution", BOOLEAN, "delay_execution"),
    ),
)
RUN_JOB_REQUEST = Message("RunJobRequest", (Optional("overrides", OVERRIDES, "overrides"),))

# Services, revisions and worker pools.


def _revision_spec(concurrency: str = "", timeout: str = "") -> Message:
    return Message(
        "RevisionSpec",
        (
            *POD,
            Field("containerConcurrency", INTEGER, concurrency),
            Field("timeoutSeconds", INTEGER, timeout, SECONDS),
            Field("enableServiceLinks", UNSUPPORTED),
            Field("imagePullSecrets", UNSUPPORTED),
            Field("runtimeClassName"),
        ),
    )


REVISION_SPEC = _revision_spec("max_instance_request_concurrency", "timeout")
HEALTH_CHECK = Field(f"{RUN}health-check-disabled", TEXT, "health_check_disabled", FLAG_TEXT)
REVISION_TEMPLATE = _template(
    "RevisionTemplate", _metadata((*REVISION_ANNOTATIONS, HEALTH_CHECK), "revision"), REVISION_SPEC
)
POOL_TEMPLATE = _template(
    "RevisionTemplate", _metadata((*INSTANCE_ANNOTATIONS, *_pod_annotations()), "revision"), _revision_spec()
)
SHARE = (
    Latest("latestRevision", BOOLEAN, "type_"),
    Field("revisionName", TEXT, "revision"),
    Field("percent", INTEGER, "percent"),
)
TRAFFIC = Message(
    "TrafficTarget",
    (
        *SHARE,
        Field("tag", TEXT, "tag"),
        Field("url", IGNORED),
        Field("configurationName", UNSUPPORTED),
    ),
)
SERVICE_SPEC = Message(
    "ServiceSpec",
    (
        Inline("template", REVISION_TEMPLATE, "template"),
        Items("traffic", Listing(TRAFFIC), "traffic", key="none"),
    ),
)
POOL_SPEC = Message(
    "WorkerPoolSpec",
    (
        Inline("template", POOL_TEMPLATE, "template"),
        Items("instanceSplits", Listing(Message("InstanceSplit", SHARE)), "instance_splits", key="none"),
    ),
)
SERVICE = _resource("Service", SERVICE_ANNOTATIONS, SERVICE_SPEC)
REVISION = _resource("Revision", REVISION_ANNOTATIONS, REVISION_SPEC)
WORKER_POOL = _resource("WorkerPool", POOL_ANNOTATIONS, POOL_SPEC)
