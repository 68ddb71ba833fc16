"""Networks and databases: in v1 annotations of the execution's template, in v2 fields of the task's."""

from __future__ import annotations

import json
from typing import Any

from google.cloud import run_v2

CLOUD_SQL = "run.googleapis.com/cloudsql-instances"
CONNECTOR = "run.googleapis.com/vpc-access-connector"
EGRESS = "run.googleapis.com/vpc-access-egress"
INTERFACES = "run.googleapis.com/network-interfaces"
FIELD_ANNOTATIONS = (CLOUD_SQL, CONNECTOR, EGRESS, INTERFACES)
SOCKETS = "/cloudsql"
VOLUME = "cloudsql"
EGRESSES = {
    "all-traffic": run_v2.VpcAccess.VpcEgress.ALL_TRAFFIC,
    "all": run_v2.VpcAccess.VpcEgress.ALL_TRAFFIC,
    "private-ranges-only": run_v2.VpcAccess.VpcEgress.PRIVATE_RANGES_ONLY,
}


def other_annotations(annotations: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in annotations.items() if name not in FIELD_ANNOTATIONS}


def annotations_to_v2(annotations: dict[str, str], task: run_v2.TaskTemplate) -> None:
    """Set the fields that the annotations stand for."""
    if EGRESS in annotations or CONNECTOR in annotations or INTERFACES in annotations:
        task.vpc_access = run_v2.VpcAccess(
            connector=annotations.get(CONNECTOR, ""),
            egress=EGRESSES.get(annotations.get(EGRESS, ""), 0),
            network_interfaces=json.loads(annotations.get(INTERFACES, "[]")),
        )
    if instances := annotations.get(CLOUD_SQL):
        sockets = run_v2.CloudSqlInstance(instances=instances.split(","))
        task.volumes = [*task.volumes, run_v2.Volume(name=VOLUME, cloud_sql_instance=sockets)]
        if task.containers:
            task.containers[0].volume_mounts = [run_v2.VolumeMount(name=VOLUME, mount_path=SOCKETS)]


def annotations_to_v1(task: run_v2.TaskTemplate) -> dict[str, str]:
    """The annotations that the fields are."""
    access = task.vpc_access
    instances = [name for volume in task.volumes for name in volume.cloud_sql_instance.instances]
    found = {
        CLOUD_SQL: ",".join(instances),
        CONNECTOR: access.connector,
        EGRESS: next((name for name, value in EGRESSES.items() if value == access.egress), ""),
        INTERFACES: json.dumps(interfaces) if (interfaces := _interfaces(access)) else "",
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
