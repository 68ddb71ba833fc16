"""Write Scheduler jobs as google_cloud_scheduler_job."""

from __future__ import annotations

import shlex
from base64 import b64encode
from typing import TYPE_CHECKING, Any

from cloudrun_jobs.backends.cloudrun import targets
from cloudrun_jobs.deploy.desired import DesiredSchedulerJob
from cloudrun_jobs.deploy.export.declarations import Declarations, present, retry_config, seconds
from cloudrun_jobs.deploy.export.terraform.expressions import Expression

if TYPE_CHECKING:
    from cloudrun_jobs.deploy.export.terraform.access import Accounts


def resource(schedule: DesiredSchedulerJob, declarations: Declarations, accounts: Accounts) -> dict[str, Any]:
    return present(
        **{"//": f"manage.py {shlex.join(schedule.args)}"},  # For readers: the body is in base64.
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
    job = declarations.job_of(schedule)
    name = f"${{google_cloud_run_v2_job.{job.id}.name}}"
    return Expression(targets.job_url(declarations.project, declarations.region, name))


def _token(token: targets.AuthToken, accounts: Accounts) -> dict[str, Any]:
    email = accounts.email(token.service_account)
    if token.audience:
        return {"oidc_token": {"service_account_email": email, "audience": token.audience}}
    return {"oauth_token": {"service_account_email": email}}
