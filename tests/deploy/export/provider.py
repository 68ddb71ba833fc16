"""A Terraform provider with the arguments of Google's and no implementation, for `terraform validate`.

A program. Run by a Python that has the packages tf and cdktf-cdktf-provider-google: the arguments, their types and
which are required are read from the source of the latter, which is generated from the provider's own schema.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

from tf.iface import Provider, Resource
from tf.runner import run_provider
from tf.schema import Attribute, Block, NestedBlock, NestMode, Schema
from tf.types import Bool, List, Map, Number, String, TfType

RESOURCES = {
    "artifact_registry_repository": "ArtifactRegistryRepository",
    "artifact_registry_repository_iam_member": "ArtifactRegistryRepositoryIamMember",
    "cloud_run_v2_job": "CloudRunV2Job",
    "cloud_run_v2_job_iam_member": "CloudRunV2JobIamMember",
    "cloud_run_v2_worker_pool": "CloudRunV2WorkerPool",
    "cloud_scheduler_job": "CloudSchedulerJob",
    "iam_workload_identity_pool": "IamWorkloadIdentityPool",
    "iam_workload_identity_pool_provider": "IamWorkloadIdentityPoolProvider",
    "monitoring_alert_policy": "MonitoringAlertPolicy",
    "monitoring_uptime_check_config": "MonitoringUptimeCheckConfig",
    "project_iam_member": "ProjectIamMember",
    "project_service": "ProjectService",
    "redis_instance": "RedisInstance",
    "secret_manager_secret": "SecretManagerSecret",
    "secret_manager_secret_iam_member": "SecretManagerSecretIamMember",
    "secret_manager_secret_version": "SecretManagerSecretVersion",
    "service_account": "ServiceAccount",
    "service_account_iam_member": "ServiceAccountIamMember",
}
# Arguments that Terraform adds to every resource.
META = {"connection", "count", "depends_on", "for_each", "lifecycle", "provider", "provisioners"}
# Attributes that the service computes and other resources refer to.
COMPUTED = {
    "iam_workload_identity_pool": ("name",),
    "monitoring_uptime_check_config": ("uptime_check_id",),
    "redis_instance": ("auth_string", "host", "port"),
    "service_account": ("email", "name"),
}


class AnyNumber(NestedBlock):
    """A list of blocks, which the package does not have."""

    def to_pb(self) -> Any:
        block = super().to_pb()
        block.nesting = block.LIST
        return block


def read(module: str) -> dict[str, ast.FunctionDef]:
    """Return the constructors of a module's classes."""
    package = importlib.util.find_spec("cdktf_cdktf_provider_google")
    assert package is not None
    tree = ast.parse((Path(str(package.origin)).parent / module / "__init__.py").read_text())
    return {
        node.name: function
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        for function in node.body
        if isinstance(function, ast.FunctionDef) and function.name == "__init__"
    }


def fields(classes: dict[str, ast.FunctionDef], name: str) -> tuple[list[Attribute], list[NestedBlock]]:
    attributes, blocks = [], []
    arguments = classes[name].args
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if argument.arg in META:
            continue
        assert argument.annotation is not None
        annotation, required = ast.unparse(argument.annotation), default is None
        if found := re.search(rf"'({name}\w+)'", annotation):
            inner = Block(*fields(classes, found[1]))
            blocks.append(AnyNumber(argument.arg, NestMode.Set, inner, min_items=int(required)))
        else:
            kind = kind_of(annotation)
            attributes.append(
                Attribute(argument.arg, kind, required=required, optional=not required, computed=not required)
            )
    return attributes, blocks


def kind_of(annotation: str) -> TfType:
    if "Mapping[" in annotation:
        return Map(String())
    if "Sequence[" in annotation:
        return List(String())
    if "builtins.bool" in annotation:
        return Bool()
    return Number() if "jsii.Number" in annotation else String()


def resource(module: str, name: str) -> type[Resource]:
    attributes, blocks = fields(read(module), name)
    attributes += [Attribute(computed, String(), computed=True) for computed in COMPUTED.get(module, ())]
    schema = Schema(attributes=attributes, block_types=blocks)
    names = ("create", "read", "update", "delete", "plan", "validate", "__init__")
    methods: dict[str, Any] = dict.fromkeys(names, lambda *args: None)
    methods["get_name"] = staticmethod(lambda: module)
    methods["get_schema"] = staticmethod(lambda: schema)
    return type(name, (Resource,), methods)


class Google(Provider):
    def full_name(self) -> str:
        return "hashicorp/google"

    def get_model_prefix(self) -> str:
        return "google_"

    def get_provider_schema(self, diags: Any) -> Schema:
        return Schema()

    def get_data_sources(self) -> list[type[Any]]:
        return []

    def get_resources(self) -> list[type[Resource]]:
        return [resource(*item) for item in RESOURCES.items()]

    def validate_config(self, diags: Any, config: Any) -> None:
        pass

    configure_provider = validate_config


if __name__ == "__main__":
    run_provider(Google(), sys.argv)
