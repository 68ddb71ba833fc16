"""Translate networks and databases between v1, where they are annotations, and v2, where they are fields."""

from __future__ import annotations

import json
from typing import Any

from google.cloud import run_v2

CLOUD_SQL_INSTANCES = "run.googleapis.com/cloudsql-instances"
VPC_CONNECTOR = "run.googleapis.com/vpc-access-connector"
VPC_EGRESS = "run.googleapis.com/vpc-access-egress"
NETWORK_INTERFACES = "run.googleapis.com/network-interfaces"
FIELD_ANNOTATIONS = (CLOUD_SQL_INSTANCES, VPC_CONNECTOR, VPC_EGRESS, NETWORK_INTERFACES)
CLOUD_SQL_MOUNT_PATH = "/cloudsql"
CLOUD_SQL_VOLUME = "cloudsql"
EGRESS_SETTINGS = {
    "all-traffic": run_v2.VpcAccess.VpcEgress.ALL_TRAFFIC,
    "all": run_v2.VpcAccess.VpcEgress.ALL_TRAFFIC,
    "private-ranges-only": run_v2.VpcAccess.VpcEgress.PRIVATE_RANGES_ONLY,
}


def other_annotations(annotations: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in annotations.items() if name not in FIELD_ANNOTATIONS}


def annotations_to_v2(annotations: dict[str, str], task: Any) -> None:
    """Set the fields of the template of tasks or revisions that the annotations describe."""
    if VPC_EGRESS in annotations or VPC_CONNECTOR in annotations or NETWORK_INTERFACES in annotations:
        task.vpc_access = run_v2.VpcAccess(
            connector=annotations.get(VPC_CONNECTOR, ""),
            egress=EGRESS_SETTINGS.get(annotations.get(VPC_EGRESS, ""), 0),
            network_interfaces=json.loads(annotations.get(NETWORK_INTERFACES, "[]")),
        )
    if instances := annotations.get(CLOUD_SQL_INSTANCES):
        sockets = run_v2.CloudSqlInstance(instances=instances.split(","))
        task.volumes = [*task.volumes, run_v2.Volume(name=CLOUD_SQL_VOLUME, cloud_sql_instance=sockets)]
        if task.containers:
            mount = run_v2.VolumeMount(name=CLOUD_SQL_VOLUME, mount_path=CLOUD_SQL_MOUNT_PATH)
            task.containers[0].volume_mounts = [*task.containers[0].volume_mounts, mount]


def annotations_to_v1(task: Any) -> dict[str, str]:
    """Return the annotations that describe the fields of a template."""
    access = task.vpc_access
    instances = [name for volume in task.volumes for name in volume.cloud_sql_instance.instances]
    found = {
        CLOUD_SQL_INSTANCES: ",".join(instances),
        VPC_CONNECTOR: access.connector,
        VPC_EGRESS: next((name for name, value in EGRESS_SETTINGS.items() if value == access.egress), ""),
        NETWORK_INTERFACES: json.dumps(interfaces) if (interfaces := _interfaces(access)) else "",
    }
    return {name: value for name, value in found.items() if value}


def _interfaces(access: run_v2.VpcAccess) -> list[dict[str, Any]]:
    names = ("network", "subnetwork")
    return [
        {
            **{name: getattr(interface, name) for name in names if getattr(interface, name)},
            **({"tags": list(interface.tags)} if interface.tags else {}),
        }
        for interface in access.network_interfaces
    ]
