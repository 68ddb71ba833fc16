"""Write Cloud Run Jobs and Scheduler jobs as resources of the provider hashicorp/google."""

from __future__ import annotations

import shlex
from base64 import b64encode
from typing import Any

from cloudrun_jobs.backends.cloudrun import targets
from cloudrun_jobs.deploy.desired import OWNERSHIP_ANNOTATION, DesiredJob, DesiredSchedulerJob, Secret
from cloudrun_jobs.deploy.export.declarations import Declarations, interface, present, retry_config, seconds
from cloudrun_jobs.deploy.export.terraform.access import Accounts
from cloudrun_jobs.deploy.export.terraform.expressions import Expression
from cloudrun_jobs.deploy.plan import Redacted

VOLUME = "cloudsql"


def cloud_run_job(job: DesiredJob, declarations: Declarations, accounts: Accounts) -> dict[str, Any]:
    return present(
        name=job.id,
        location=declarations.region,
        project=declarations.project,
        labels=dict(job.labels),
        annotations={OWNERSHIP_ANNOTATION: str(job.ownership)},
        template=present(task_count=job.tasks, parallelism=job.task_parallelism, template=_task(job, accounts)),
        # Cloud Run rejects a job whose account does not have access to its secrets yet.
        depends_on=[f"google_secret_manager_secret_iam_member.{name}" for name in accounts.secret_bindings(job)],
    )


def _task(job: DesiredJob, accounts: Accounts) -> dict[str, Any]:
    return {"timeout": seconds(job.timeout), "max_retries": job.max_retries, **template(job, accounts)}


def template(job: DesiredJob, accounts: Accounts) -> dict[str, Any]:
    """Return what the templates of a job and of a worker pool have in common."""
    instances, network = sorted(job.cloud_sql), interface(job)
    return present(
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


def scheduler_job(schedule: DesiredSchedulerJob, declarations: Declarations, accounts: Accounts) -> dict[str, Any]:
    return present(
        # For readers: the body is in base64.
        **{"//": f"manage.py {shlex.join(schedule.args).removeprefix('manage.py ')}"},
        name=schedule.id,
        region=declarations.scheduler_region,
        project=declarations.project,
        description=str(schedule.ownership),
        schedule=schedule.schedule,
        time_zone=schedule.time_zone,
        attempt_deadline=seconds(schedule.attempt_deadline) if schedule.attempt_deadline else None,
        retry_config=retry_config(schedule),
        http_target={
            "uri": _uri(schedule, declarations),
            "http_method": schedule.method,
            "headers": {"Content-Type": schedule.content_type},
            "body": b64encode(schedule.body).decode(),
            **_token(schedule.token, accounts),
        },
    )


def _uri(schedule: DesiredSchedulerJob, declarations: Declarations) -> str:
    """Return the URL with a reference to the job, so that Terraform creates the job first and deletes it last."""
    if schedule.to_service:
        return schedule.url
    name = f"${{google_cloud_run_v2_job.{declarations.job_of(schedule).id}.name}}"
    return Expression(targets.job_url(declarations.project, declarations.region, name))


def _token(token: targets.AuthToken, accounts: Accounts) -> dict[str, Any]:
    email = accounts.email(token.service_account)
    if token.audience:
        return {"oidc_token": {"service_account_email": email, "audience": token.audience}}
    return {"oauth_token": {"service_account_email": email}}
