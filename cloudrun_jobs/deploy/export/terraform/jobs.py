"""The Cloud Run Jobs: google_cloud_run_v2_job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudrun_jobs.deploy.cloudrun.field_values import ANNOTATION, Secret
from cloudrun_jobs.deploy.export.declarations import INTERFACE, Declarations, present, under
from cloudrun_jobs.deploy.export.durations import seconds
from cloudrun_jobs.deploy.plan import Desired, Redacted

if TYPE_CHECKING:
    from cloudrun_jobs.deploy.export.terraform.access import Accounts

VOLUME = "cloudsql"


def resource(job: Desired, declarations: Declarations, accounts: Accounts) -> dict[str, Any]:
    fields = job.fields
    return present(
        name=job.id,
        location=declarations.region,
        project=declarations.project,
        labels=under(fields, "labels"),
        annotations={ANNOTATION: str(job.mark)},
        template=present(
            task_count=fields["tasks"],
            parallelism=fields.get("task_parallelism"),
            template=_task(job, accounts),
        ),
        # Cloud Run refuses a job whose account may not read its secrets yet.
        depends_on=[f"google_secret_manager_secret_iam_member.{name}" for name in accounts.secret_bindings(job)],
    )


def _task(job: Desired, accounts: Accounts) -> dict[str, Any]:
    fields = job.fields
    account = fields.get("service_account")
    instances = sorted(under(fields, "cloud_sql"))
    return present(
        timeout=seconds(fields["timeout"]),
        max_retries=fields["max_retries"],
        service_account=accounts.email(account) if account else None,
        containers=[_container(job)],
        volumes=[{"name": VOLUME, "cloud_sql_instance": {"instances": instances}}] if instances else None,
        vpc_access=_vpc(under(fields, "vpc")),
    )


def _container(job: Desired) -> dict[str, Any]:
    fields = job.fields
    mounts = sorted(set(under(fields, "cloud_sql").values()))
    return present(
        image=fields["image"],
        command=list(fields["entrypoint"]),
        args=list(fields["args"]),
        env=[_variable(name, value) for name, value in under(fields, "env_vars").items()],
        resources=present(limits=present(cpu=fields.get("cpu"), memory=fields.get("memory"))),
        volume_mounts=[{"name": VOLUME, "mount_path": path} for path in mounts],
    )


def _variable(name: str, value: Redacted | Secret) -> dict[str, Any]:
    if isinstance(value, Secret):
        reference = {"secret": value.name, "version": value.version}
        return {"name": name, "value_source": {"secret_key_ref": reference}}
    return {"name": name, "value": value.value}


def _vpc(vpc: dict[str, Any]) -> dict[str, Any]:
    interface = {name: vpc[name] for name in INTERFACE if vpc.get(name)}
    return present(
        connector=vpc.get("connector"),
        egress=vpc.get("egress", "").upper().replace("-", "_"),
        network_interfaces=[interface] if interface else None,
    )
