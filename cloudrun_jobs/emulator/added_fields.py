"""Fields, messages and enum values of the REST APIs that Google's Python clients do not have yet.

The discovery documents have them. A field that a newer client has is not added again.
"""

from __future__ import annotations

from typing import TypeAlias

# By message: the type of each field, with "repeated", "optional" or "map" as in a proto file. The name of a oneof
# precedes it, with a slash. A message that the client lacks is created.
Fields: TypeAlias = dict[str, dict[str, str]]
# By enum: all values in the order of their numbers.
Enums: TypeAlias = dict[str, tuple[str, ...]]

_CLIENT = {"client": "string", "client_version": "string"}
_IDENTITY_AND_SANDBOXES = {
    "sandboxes": "SandboxConfiguration",
    "workload_identity_config": "WorkloadIdentityConfig",
}
_REVISION = {**_CLIENT, **_IDENTITY_AND_SANDBOXES, "ambient_networking": "AmbientNetworking"}

RUN_FIELDS: Fields = {
    "Condition": {"instance_reason": "InstanceReason"},
    "Container": {"build_config": "BuildConfiguration", "sandbox_launcher": "bool"},
    "Execution": _CLIENT,
    "ExecutionTemplate": {**_CLIENT, "delay_execution": "bool"},
    "Job": {"functional_type": "FunctionalType"},
    "Revision": {**_REVISION, "container_statuses": "repeated ContainerStatus"},
    "RevisionScaling": {"concurrency_utilization": "optional float", "cpu_utilization": "optional float"},
    "RevisionTemplate": _REVISION,
    "RunJobRequest.Overrides": {"delay_execution": "bool"},
    "Service": {"functional_type": "FunctionalType", "ssh_enabled": "bool"},
    "SourceCode": {"inlined_source": "source_type/InlinedSource"},
    "Task": _IDENTITY_AND_SANDBOXES,
    "TaskTemplate": _IDENTITY_AND_SANDBOXES,
    "Volume": {"filestore": "volume_type/FilestoreVolumeSource"},
    "WorkerPoolRevisionTemplate": {**_CLIENT, "sandboxes": "SandboxConfiguration"},
    # Messages that only fields above have.
    "AmbientNetworking": {"ambient_scope": "AmbientScope", "enabled": "bool"},
    "BuildConfiguration": {
        "buildpacks_build": "build_type/BuildConfigurationBuildpacksBuild",
        "docker_build": "build_type/BuildConfigurationDockerBuild",
        "image_repository_uri": "string",
        "service_account": "string",
        "tags": "repeated string",
        "worker_configuration": "WorkerConfiguration",
    },
    "BuildConfigurationBuildpacksBuild": {
        "build_base_image_uri": "string",
        "cache_image_uri": "string",
        "environment_variables": "map string",
    },
    "BuildConfigurationDockerBuild": {},
    "BuildStatus": {"cloud_build_log_url": "string", "message": "string", "status": "string"},
    "CloudBuildWorkerConfiguration": {"machine_type": "string", "worker_pool": "string"},
    "ContainerStatus": {"build_status": "BuildStatus", "image_digest": "string", "name": "string"},
    "FilestoreVolumeSource": {"volume": "string"},
    "InlinedSource": {"sources": "repeated SourceFile"},
    "SandboxConfiguration": {"templates": "repeated SandboxTemplate"},
    "SandboxTemplate": {
        "args": "repeated string",
        "command": "repeated string",
        "env": "repeated EnvVar",
        "image": "string",
        "name": "string",
        "volume_mounts": "repeated VolumeMount",
        "working_dir": "string",
    },
    "SourceFile": {"content": "string", "filename": "string"},
    "WorkerConfiguration": {"cloud_build_worker_configuration": "CloudBuildWorkerConfiguration"},
    "WorkloadIdentityConfig": {
        "identity": "string",
        "identity_certificate_enabled": "bool",
        "identity_type": "IdentityType",
    },
}
RUN_ENUMS: Enums = {
    "AmbientScope": ("AMBIENT_SCOPE_UNSPECIFIED", "AMBIENT_SCOPE_REGIONAL", "AMBIENT_SCOPE_GLOBAL"),
    "Condition.ExecutionReason": (
        "EXECUTION_REASON_UNDEFINED",
        "JOB_STATUS_SERVICE_POLLING_ERROR",
        "NON_ZERO_EXIT_CODE",
        "CANCELLED",
        "CANCELLING",
        "DELETED",
        "DELAYED_START_PENDING",
        "DELAYED_EXECUTION_EXCEEDING_DURATION_LIMIT",
    ),
    "EmptyDirVolumeSource.Medium": ("MEDIUM_UNSPECIFIED", "MEMORY", "DISK"),
    "FunctionalType": (
        "FUNCTIONAL_TYPE_UNSPECIFIED",
        "FUNCTIONAL_TYPE_AGENT",
        "FUNCTIONAL_TYPE_MCP_SERVER",
    ),
    "IdentityType": (
        "IDENTITY_TYPE_UNSPECIFIED",
        "IDENTITY_TYPE_SERVICE_ACCOUNT",
        "IDENTITY_TYPE_AGENT_IDENTITY",
    ),
    "InstanceReason": (
        "INSTANCE_REASON_UNSPECIFIED",
        "INSTANCE_DELETED",
        "INSTANCE_STOPPED",
        "INSTANCE_STOPPING",
        "INSTANCE_NON_ZERO_EXIT_CODE",
    ),
}
LOGGING_FIELDS: Fields = {
    "ListLogEntriesRequest": {"project_ids": "repeated string"},
    "LogEntry": {"otel": "google.protobuf.Struct"},
}
# The requests of services without a client, in one message. Fields that it lacks are not checked.
PLAIN_FIELDS: Fields = {
    "Request": {
        **dict.fromkeys(("name", "parent", "resource", "filter", "page_token", "update_mask"), "string"),
        "page_size": "int32",
        **dict.fromkeys(("account_id", "role_id", "repository_id", "full_resource_name"), "string"),
        **dict.fromkeys(("names", "service_ids"), "repeated string"),
        "role": "Role",
        "service_account": "ServiceAccount",
        # Resources that are the whole body: a role and a repository.
        **dict.fromkeys(("title", "description", "stage", "etag", "format"), "string"),
        "included_permissions": "repeated string",
        "labels": "map string",
    },
    "Role": {
        **dict.fromkeys(("name", "title", "description", "stage", "etag"), "string"),
        "included_permissions": "repeated string",
        "deleted": "bool",
    },
    "ServiceAccount": {
        **dict.fromkeys(("name", "project_id", "unique_id", "email", "display_name", "etag"), "string"),
        **dict.fromkeys(("description", "oauth2_client_id"), "string"),
        "disabled": "bool",
    },
}
