"""Service accounts, and what each of them may do: no more than it needs, on no more than it needs it for.

Names are those of the resources, and unique: no name of a job, and no id of an account, has an underscore.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

from cloudrun_jobs.deploy.export.declarations import Declarations, secrets
from cloudrun_jobs.deploy.export.terraform.expressions import Expression
from cloudrun_jobs.deploy.plan import Desired

CALLERS = "cloudrun_jobs_callers"
# An entry's body overrides the arguments, as delay() does, and roles/run.invoker may not.
EXECUTOR = "roles/run.jobsExecutorWithOverrides"
VIEWER = "roles/run.viewer"  # To find an execution again, and to ask what became of it.
ACCESSOR = "roles/secretmanager.secretAccessor"


class Accounts:
    """The service accounts that jobs and schedules name; those of the project are made."""

    def __init__(self, declarations: Declarations) -> None:
        self._project = declarations.project
        # Of a project "example.com:acme", the accounts end in "@acme.example.com.iam.gserviceaccount.com".
        domain = ".".join(reversed(self._project.split(":")))
        self._suffix = f"@{domain}.iam.gserviceaccount.com"
        named = {job.fields.get("service_account") for job in declarations.jobs}
        named |= {schedule.fields["token"].service_account for schedule in declarations.schedules}
        self._ours = sorted(name for name in named if name and name.endswith(self._suffix))

    def resources(self) -> dict[str, Any]:
        return {
            self.name(account): {"account_id": account.removesuffix(self._suffix), "project": self._project}
            for account in self._ours
        }

    def name(self, account: str) -> str:
        """Return what its resource is called, or what is about it if it has none."""
        if account in self._ours:
            return account.removesuffix(self._suffix)
        digest = sha256(account.encode()).hexdigest()[:8]
        return f"account-{re.sub('[^a-zA-Z0-9]', '-', account)}-{digest}"

    def email(self, account: str) -> str:
        """Return its address: of one that is made, so that it is made first."""
        return Expression(self._reference(account)) if account in self._ours else account

    def member(self, account: str) -> str:
        return Expression(f"serviceAccount:{self._reference(account)}")

    def secret_bindings(self, job: Desired) -> dict[str, dict[str, Any]]:
        """Return what lets a job's account read its secrets; nothing if it names none."""
        account = job.fields.get("service_account")
        if not account:
            return {}
        return {
            f"{self.name(account)}_{secret}": {
                "project": self._project,
                "secret_id": secret,
                "role": ACCESSOR,
                "member": self.member(account),
            }
            for secret in secrets(job)
        }

    def _reference(self, account: str) -> str:
        return f"${{google_service_account.{self.name(account)}.email}}" if account in self._ours else account


def secret_members(declarations: Declarations, accounts: Accounts) -> dict[str, Any]:
    bindings = (accounts.secret_bindings(job) for job in declarations.jobs)
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
        if not schedule.fields["to_service"]:
            job = declarations.job_of(schedule)
            member = accounts.member(schedule.fields["token"].service_account)
            yield f"{job.id}_scheduler", {**_on(job, declarations), "role": EXECUTOR, "member": member}


def _on(job: Desired, declarations: Declarations) -> dict[str, Any]:
    name = Expression(f"${{google_cloud_run_v2_job.{job.id}.name}}")
    return {"project": declarations.project, "location": declarations.region, "name": name}
