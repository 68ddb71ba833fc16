"""Write Cloud Run Jobs as google_cloud_run_v2_job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudrun_jobs.deploy.desired import OWNERSHIP_ANNOTATION, DesiredJob, Secret
from cloudrun_jobs.deploy.export.declarations import Declarations, interface, present, seconds
from cloudrun_jobs.deploy.plan import Redacted

if TYPE_CHECKING:
    from cloudrun_jobs.deploy.export.terraform.access import Accounts

VOLUME = "cloudsql"


def resource(job: DesiredJob, declarations: Declarations, accounts: Accounts) -> dict[str, Any]:
    return present(
        name=job.id,
        location=declarations.region,
        project=declarations.project,
        labels=dict(job.labels),
        annotations={OWNERSHIP_ANNOTATION: str(job.ownership)},
        template=present(
            task_count=job.tasks,
            parallelism=job.task_parallelism,
            template=_task(job, accounts),
        ),
        # Cloud Run rejects a job whose account does not have access to its secrets yet.
        depends_on=[f"google_secret_manager_secret_iam_member.{name}" for name in accounts.secret_bindings(job)],
    )


def _task(job: DesiredJob, accounts: Accounts) -> dict[str, Any]:
    instances, network = sorted(job.cloud_sql), interface(job)
    return present(
        timeout=seconds(job.timeout),
        max_retries=job.max_retries,
        service_account=accounts.email(job.service_account) if job.service_account else None,
        containers=[_container(job)],
        volumes=[{"name": VOLUME, "cloud_sql_instance": {"instances": instances}}] if instances else None,
        vpc_access=present(
            connector=job.vpc.get("connector"),
            egress=job.vpc.get("egress", "").upper().replace("-", "_"),
            network_interfaces=[network] if network else None,
        ),
    )


def _container(job: DesiredJob) -> dict[str, Any]:
    return present(
        image=job.image,
        command=list(job.entrypoint),
        args=list(job.args),
        env=[_variable(name, value) for name, value in job.env_vars.items()],
        resources=present(limits=present(cpu=job.cpu, memory=job.memory)),
        volume_mounts=[{"name": VOLUME, "mount_path": path} for path in sorted({*job.cloud_sql.values()})],
    )


def _variable(name: str, value: Redacted | Secret) -> dict[str, Any]:
    if isinstance(value, Secret):
        reference = {"secret": value.name, "version": value.version}
        return {"name": name, "value_source": {"secret_key_ref": reference}}
    return {"name": name, "value": value.value}
