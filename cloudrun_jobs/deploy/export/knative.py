"""A job as `gcloud run jobs replace` takes it: of v1, where networks and databases are annotations."""

from __future__ import annotations

import json
from typing import Any

from cloudrun_jobs.deploy.cloudrun.field_values import ANNOTATION, Secret
from cloudrun_jobs.deploy.export.declarations import INTERFACE, present, under
from cloudrun_jobs.deploy.plan import Desired, Redacted

PREFIX = "run.googleapis.com/"


def job(declared: Desired, region: str) -> dict[str, Any]:
    fields = declared.fields
    return {
        "apiVersion": f"{PREFIX}v1",
        "kind": "Job",
        "metadata": {
            "name": declared.id,
            "labels": {**under(fields, "labels"), "cloud.googleapis.com/location": region},
            "annotations": {ANNOTATION: str(declared.mark)},
        },
        "spec": {"template": _execution(declared)},
    }


def _execution(declared: Desired) -> dict[str, Any]:
    fields = declared.fields
    return present(
        metadata=present(annotations=_annotations(declared)),
        spec=present(
            taskCount=fields["tasks"],
            parallelism=fields.get("task_parallelism"),
            template={"spec": _task(declared)},
        ),
    )


def _task(declared: Desired) -> dict[str, Any]:
    fields = declared.fields
    container = present(
        image=fields["image"],
        command=list(fields["entrypoint"]),
        args=list(fields["args"]),
        env=[_variable(name, value) for name, value in under(fields, "env_vars").items()],
        resources=present(limits=present(cpu=fields.get("cpu"), memory=fields.get("memory"))),
    )
    return present(
        containers=[container],
        maxRetries=fields["max_retries"],
        timeoutSeconds=int(fields["timeout"].total_seconds()),
        serviceAccountName=fields.get("service_account"),
    )


def _variable(name: str, value: Redacted | Secret) -> dict[str, Any]:
    if isinstance(value, Secret):
        # In v1 the secret is the name, and its version the key.
        return {"name": name, "valueFrom": {"secretKeyRef": {"name": value.name, "key": value.version}}}
    return {"name": name, "value": value.value}


def _annotations(declared: Desired) -> dict[str, str]:
    vpc = under(declared.fields, "vpc")
    interface = {name: vpc[name] for name in INTERFACE if vpc.get(name)}
    found = {
        "cloudsql-instances": ",".join(sorted(under(declared.fields, "cloud_sql"))),
        "vpc-access-connector": vpc.get("connector", ""),
        "vpc-access-egress": vpc.get("egress", ""),
        "network-interfaces": json.dumps([interface]) if interface else "",
    }
    return {f"{PREFIX}{name}": value for name, value in found.items() if value}
