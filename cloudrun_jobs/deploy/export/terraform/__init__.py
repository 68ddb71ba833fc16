"""Write the jobs and schedules as Terraform's JSON, to be added to a configuration that has the provider."""

from __future__ import annotations

import json
from typing import Any

from cloudrun_jobs.deploy.export.declarations import Declarations
from cloudrun_jobs.deploy.export.terraform import access, alerts, celery, resources
from cloudrun_jobs.deploy.export.terraform.expressions import escaped

CALLERS = {
    "type": "set(string)",
    "default": [],
    "description": "The callers of delay() and cancel(), such as serviceAccount:web@acme.iam.gserviceaccount.com",
}


def text(declarations: Declarations) -> str:
    return f"{json.dumps(document(declarations), ensure_ascii=False, indent=2)}\n"


def document(declarations: Declarations) -> dict[str, Any]:
    """Return the document, sorted by kind of resource and by name."""
    accounts, pools = access.Accounts(declarations), declarations.worker_pools
    by_kind = {
        "google_service_account": accounts.resources(),
        "google_secret_manager_secret_iam_member": access.secret_members(declarations, accounts),
        "google_cloud_run_v2_job": {
            job.id: resources.cloud_run_job(job, declarations, accounts) for job in declarations.jobs
        },
        "google_cloud_run_v2_job_iam_member": access.job_members(declarations, accounts),
        "google_cloud_scheduler_job": {
            schedule.id: resources.scheduler_job(schedule, declarations, accounts)
            for schedule in declarations.schedules
        },
        "google_cloud_run_v2_worker_pool": {
            pool.job.id: celery.worker_pool(pool, declarations, accounts) for pool in pools
        },
        **(celery.broker(declarations) if pools else {}),
        **alerts.resources(declarations),
    }
    return {
        "variable": {
            access.CALLERS: CALLERS,
            **(celery.variables(pools) if pools else {}),
            **alerts.variables(declarations),
        },
        "resource": {kind: escaped(found) for kind, found in by_kind.items() if found},
    }
