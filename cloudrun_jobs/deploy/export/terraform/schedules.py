"""The entries of Cloud Scheduler: google_cloud_scheduler_job."""

from __future__ import annotations

import shlex
from base64 import b64encode
from typing import TYPE_CHECKING, Any

from cloudrun_jobs.backends.cloudrun import targets
from cloudrun_jobs.deploy.export.declarations import Declarations, present
from cloudrun_jobs.deploy.export.delivery import body, delivery
from cloudrun_jobs.deploy.export.terraform.expressions import Expression
from cloudrun_jobs.deploy.plan import Desired

if TYPE_CHECKING:
    from cloudrun_jobs.deploy.export.terraform.access import Accounts


def resource(schedule: Desired, declarations: Declarations, accounts: Accounts) -> dict[str, Any]:
    fields, attempt, retries = schedule.fields, *delivery(schedule)
    return present(
        **{"//": f"manage.py {shlex.join(fields['args'])}"},  # The body cannot be read: it is in base64.
        name=schedule.id,
        region=declarations.scheduler_region,
        project=declarations.project,
        description=str(schedule.mark),
        schedule=fields["schedule"],
        time_zone=fields["time_zone"],
        attempt_deadline=attempt,
        retry_config=retries,
        http_target={
            "uri": _uri(schedule, declarations),
            "http_method": fields["method"],
            "headers": {"Content-Type": fields["content_type"]},
            "body": b64encode(body(schedule)).decode(),
            **_token(fields["token"], accounts),
        },
    )


def _uri(schedule: Desired, declarations: Declarations) -> str:
    """Return where it calls, so that Terraform makes the job before and deletes it after."""
    if schedule.fields["to_service"]:
        return str(schedule.fields["url"])
    job = declarations.job_of(schedule)
    name = f"${{google_cloud_run_v2_job.{job.id}.name}}"
    return Expression(targets.job_url(declarations.project, declarations.region, name))


def _token(token: targets.AuthToken, accounts: Accounts) -> dict[str, Any]:
    email = accounts.email(token.service_account)
    if token.audience:
        return {"oidc_token": {"service_account_email": email, "audience": token.audience}}
    return {"oauth_token": {"service_account_email": email}}
