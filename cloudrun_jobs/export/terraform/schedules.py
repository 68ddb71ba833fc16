"""The entries of Cloud Scheduler: google_cloud_scheduler_job."""

from __future__ import annotations

import shlex
from base64 import b64encode
from typing import TYPE_CHECKING, Any

from ...backends.cloudrun import entries
from ...plans import Declared
from ..declarations import Declarations, present
from ..delivery import body, delivery
from .expressions import Expression

if TYPE_CHECKING:
    from .access import Accounts


def resource(schedule: Declared, declarations: Declarations, accounts: Accounts) -> dict[str, Any]:
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


def _uri(schedule: Declared, declarations: Declarations) -> str:
    """Return where it calls, so that Terraform makes the job before and deletes it after."""
    if schedule.fields["to_service"]:
        return str(schedule.fields["url"])
    job = declarations.job_of(schedule)
    name = f"${{google_cloud_run_v2_job.{job.id}.name}}"
    return Expression(entries.job_url(declarations.project, declarations.region, name))


def _token(token: entries.Token, accounts: Accounts) -> dict[str, Any]:
    email = accounts.email(token.service_account)
    if token.audience:
        return {"oidc_token": {"service_account_email": email, "audience": token.audience}}
    return {"oauth_token": {"service_account_email": email}}
