"""Write service accounts and their IAM bindings, with least privilege.

The keys are resource names. They are unique, because names of jobs and ids of accounts contain no underscore.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

from cloudrun_jobs.deploy.desired import DesiredJob
from cloudrun_jobs.deploy.export.declarations import Declarations, secrets
from cloudrun_jobs.deploy.export.terraform.expressions import Expression
from cloudrun_jobs.deploy.workers import SECRETS

CALLERS = "cloudrun_jobs_callers"
# Scheduler jobs and delay() override the arguments, which roles/run.invoker does not permit.
EXECUTOR = "roles/run.jobsExecutorWithOverrides"
VIEWER = "roles/run.viewer"  # Permits to find an execution and to read its state.
ACCESSOR = "roles/secretmanager.secretAccessor"


class Accounts:
    """The service accounts that jobs and schedules name. Those of the project become resources."""

    def __init__(self, declarations: Declarations) -> None:
        self._project = declarations.project
        # The accounts of the project "example.com:acme" end in "@acme.example.com.iam.gserviceaccount.com".
        domain = ".".join(reversed(self._project.split(":")))
        self._suffix = f"@{domain}.iam.gserviceaccount.com"
        named = {job.service_account for job in declarations.containers}
        named |= {schedule.token.service_account for schedule in declarations.schedules}
        self._own_secrets = frozenset(SECRETS.values() if declarations.worker_pools else ())
        self._ours = sorted(name for name in named if name and name.endswith(self._suffix))

    def resources(self) -> dict[str, Any]:
        return {
            self.name(account): {"account_id": account.removesuffix(self._suffix), "project": self._project}
            for account in self._ours
        }

    def name(self, account: str) -> str:
        """Return the name of the account's resource; of an account without one, a name for its bindings."""
        if account in self._ours:
            return account.removesuffix(self._suffix)
        digest = sha256(account.encode()).hexdigest()[:8]
        return f"account-{re.sub('[^a-zA-Z0-9]', '-', account)}-{digest}"

    def email(self, account: str) -> str:
        """Return the account's address, as a reference to its resource if it has one."""
        return Expression(self._reference(account)) if account in self._ours else account

    def member(self, account: str) -> str:
        return Expression(f"serviceAccount:{self._reference(account)}")

    def secret_bindings(self, job: DesiredJob) -> dict[str, dict[str, Any]]:
        """Return the bindings that give a job's account access to the job's secrets."""
        account = job.service_account
        if not account:
            return {}
        return {
            f"{self.name(account)}_{secret}": {
                "project": self._project,
                "secret_id": self._secret(secret),
                "role": ACCESSOR,
                "member": self.member(account),
            }
            for secret in secrets(job)
        }

    def _secret(self, name: str) -> str:
        """Return the secret's name, as a reference to its resource if it has one."""
        return (
            Expression(f"${{google_secret_manager_secret.{name}.secret_id}}")
            if name in self._own_secrets
            else name
        )

    def _reference(self, account: str) -> str:
        return f"${{google_service_account.{self.name(account)}.email}}" if account in self._ours else account


def secret_members(declarations: Declarations, accounts: Accounts) -> dict[str, Any]:
    bindings = (accounts.secret_bindings(job) for job in declarations.containers)
    found = {name: binding for some in bindings for name, binding in some.items()}
    return dict(sorted(found.items()))


def job_members(declarations: Declarations, accounts: Accounts) -> dict[str, Any]:
    members = dict(_schedulers(declarations, accounts))
    for job in declarations.jobs:
        callers = {"for_each": Expression(f"${{var.{CALLERS}}}"), "member": Expression("${each.value}")}
        members[f"{job.id}_callers"] = {**callers, **_on(job, declarations), "role": EXECUTOR}
        members[f"{job.id}_viewers"] = {**callers, **_on(job, declarations), "role": VIEWER}
    return dict(sorted(members.items()))


def _schedulers(declarations: Declarations, accounts: Accounts) -> Iterator[tuple[str, Any]]:
    for schedule in declarations.schedules:
        if not schedule.to_service:
            job = declarations.job_of(schedule)
            member = accounts.member(schedule.token.service_account)
            yield f"{job.id}_scheduler", {**_on(job, declarations), "role": EXECUTOR, "member": member}


def _on(job: DesiredJob, declarations: Declarations) -> dict[str, Any]:
    name = Expression(f"${{google_cloud_run_v2_job.{job.id}.name}}")
    return {"project": declarations.project, "location": declarations.region, "name": name}
