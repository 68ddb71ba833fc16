"""Write the jobs as the resources of API v1 that `gcloud run jobs replace` reads, with networks as annotations."""

from __future__ import annotations

import json
from typing import Any

from cloudrun_jobs.deploy.desired import OWNERSHIP_ANNOTATION, DesiredJob, Secret
from cloudrun_jobs.deploy.export.declarations import Declarations, interface, present
from cloudrun_jobs.deploy.plan import Redacted
from cloudrun_jobs.exceptions import CloudRunJobsError

PREFIX = "run.googleapis.com/"


def text(declarations: Declarations) -> str:
    """Return a YAML document for each job. Raises `CloudRunJobsError` if PyYAML is not installed."""
    try:
        import yaml
    except ImportError as error:
        hint = 'pip install "django-cloudrun-jobs[yaml]"'
        raise CloudRunJobsError("YAML: PyYAML is not installed.", hint=hint) from error

    def represent_text(dumper: Any, text: str) -> Any:
        # Other parsers read more strings as numbers or booleans than PyYAML does, such as 1e3 and y.
        style = None if text.isidentifier() and len(text) > 1 else '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    class Dumper(yaml.SafeDumper):
        yaml_representers = {**yaml.SafeDumper.yaml_representers, str: represent_text}

    jobs = [job(declared, declarations.region) for declared in declarations.jobs]
    return str(yaml.dump_all(jobs, Dumper=Dumper, allow_unicode=True, sort_keys=False))


def job(declared: DesiredJob, region: str) -> dict[str, Any]:
    return {
        "apiVersion": f"{PREFIX}v1",
        "kind": "Job",
        "metadata": {
            "name": declared.id,
            "labels": {**declared.labels, "cloud.googleapis.com/location": region},
            "annotations": {OWNERSHIP_ANNOTATION: str(declared.ownership)},
        },
        "spec": {"template": _execution(declared)},
    }


def _execution(declared: DesiredJob) -> dict[str, Any]:
    return present(
        metadata=present(annotations=_annotations(declared)),
        spec=present(
            taskCount=declared.tasks, parallelism=declared.task_parallelism, template={"spec": _task(declared)}
        ),
    )


def _task(declared: DesiredJob) -> dict[str, Any]:
    container = present(
        image=declared.image,
        command=list(declared.entrypoint),
        args=list(declared.args),
        env=[_variable(name, value) for name, value in declared.env_vars.items()],
        resources=present(limits=present(cpu=declared.cpu, memory=declared.memory)),
    )
    return present(
        containers=[container],
        maxRetries=declared.max_retries,
        timeoutSeconds=int(declared.timeout.total_seconds()),
        serviceAccountName=declared.service_account,
    )


def _variable(name: str, value: Redacted | Secret) -> dict[str, Any]:
    if isinstance(value, Secret):
        # In v1 the name of the secret is `name`, and its version is `key`.
        return {"name": name, "valueFrom": {"secretKeyRef": {"name": value.name, "key": value.version}}}
    return {"name": name, "value": value.value}


def _annotations(declared: DesiredJob) -> dict[str, str]:
    network = interface(declared)
    annotations = {
        "cloudsql-instances": ",".join(sorted(declared.cloud_sql)),
        "vpc-access-connector": declared.vpc.get("connector"),
        "vpc-access-egress": declared.vpc.get("egress"),
        "network-interfaces": json.dumps([network]) if network else "",
    }
    return {f"{PREFIX}{name}": value for name, value in annotations.items() if value}
