"""Check the APIs, this process's permissions, and the service accounts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from cloudrun_jobs import conf
from cloudrun_jobs.backends.cloudrun.errors import disabled_api
from cloudrun_jobs.doctor.checks.check import Check
from cloudrun_jobs.doctor.checks.secrets import uses
from cloudrun_jobs.doctor.commands import COMPUTE_DOMAIN, gcloud, is_service_account, member, project_of
from cloudrun_jobs.doctor.facts import Facts
from cloudrun_jobs.doctor.findings import Finding
from cloudrun_jobs.exceptions import ServiceError
from cloudrun_jobs.spec import JobSpec
from cloudrun_jobs.spec.reservation import CLOUD_TASKS

SCHEDULER_VERBS = ("create", "delete", "enable", "get", "list", "pause", "run", "update")
OWN_APIS = ("serviceusage", "cloudresourcemanager", "iam")  # That the checks themselves call.
UNKNOWN_MEMBER = "MEMBER"  # Shown if this process's account cannot be determined.


class Need(NamedTuple):
    """Permissions that one narrow role grants, and their purpose."""

    id: str
    permissions: tuple[str, ...]
    role: str
    purpose: str


JOB_NEEDS = (
    Need(
        "permission_run",
        ("run.jobs.run", "run.jobs.runWithOverrides", "run.executions.cancel"),
        "roles/run.jobsExecutorWithOverrides",
        "start and cancel executions",
    ),
    Need(
        "permission_read",
        ("run.jobs.get", "run.executions.get", "run.executions.list"),
        "roles/run.viewer",
        "follow executions",
    ),
)
PROJECT_NEEDS = (
    Need(
        "permission_sync",
        ("run.jobs.create", "run.jobs.list", "run.jobs.update", "run.jobs.delete", "run.services.get"),
        "roles/run.developer",
        "sync Cloud Run Jobs",
    ),
    Need(
        "permission_schedules",
        tuple(f"cloudscheduler.jobs.{verb}" for verb in SCHEDULER_VERBS),
        "roles/cloudscheduler.admin",
        "sync Scheduler jobs",
    ),
    Need("permission_logs", ("logging.logEntries.list",), "roles/logging.viewer", "read logs"),
)
TASKS_NEEDS = (
    Need("permission_tasks", ("cloudtasks.tasks.create",), "roles/cloudtasks.enqueuer", "reserve runs"),
    Need("permission_tasks", ("cloudtasks.tasks.delete",), "roles/cloudtasks.taskDeleter", "cancel reservations"),
)


def _project_needs(facts: Facts) -> list[Need]:
    return [*PROJECT_NEEDS, *(TASKS_NEEDS if facts.backend.reservations == CLOUD_TASKS else ())]


def _needed_apis(facts: Facts) -> tuple[str, ...]:
    used = {
        "run": True,
        "cloudscheduler": True,
        "logging": True,
        "secretmanager": bool(uses(facts)) or any(spec.secret_options for spec in facts.specs()),
        "artifactregistry": any("docker.pkg.dev/" in image for image in _images(facts)),
        "cloudtasks": facts.backend.reservations == CLOUD_TASKS,
        **dict.fromkeys(OWN_APIS, True),
    }
    return tuple(f"{name}.googleapis.com" for name, is_used in used.items() if is_used)


def _images(facts: Facts) -> Iterator[str]:
    yield from (spec.image for spec in facts.deployed() if spec.image)
    with suppress(ServiceError):  # Other checks report it.
        yield from (str(existing.fields.get("image", "")) for existing in facts.existing_jobs().values())


def api_disabled(facts: Facts, _: None) -> Iterator[Finding]:
    for name in _disabled(facts):
        fix = gcloud("services", "enable", name, project=facts.project)
        yield Finding("api_disabled", None, f"The API {name} is not enabled in {facts.project}.", fix)


def _disabled(facts: Facts) -> list[str]:
    try:
        return [name for name, enabled in facts.apis(_needed_apis(facts)).items() if not enabled]
    except ServiceError as error:
        if name := disabled_api(error.__cause__):  # Service Usage's own.
            return [name]
        raise


def _missing(facts: Facts, need: Need) -> list[str]:
    """Return the permissions that this process does not have on the project."""
    needs = [*JOB_NEEDS, *_project_needs(facts)]
    granted = facts.granted(tuple(sorted({name for each in needs for name in each.permissions})))
    return [name for name in need.permissions if name not in granted]


def permission_on_project(facts: Facts, need: Need) -> Iterator[Finding]:
    if missing := _missing(facts, need):
        words = ("projects", "add-iam-policy-binding", facts.project)
        fix = gcloud(*words, member=_self(facts), role=need.role, condition="None")
        yield Finding(need.id, None, _message(facts, need, missing, f"the project {facts.project}"), fix)


def permission_on_jobs(facts: Facts, need: Need) -> Iterator[Finding]:
    """Permissions on the project hold for all jobs. Those that no job grants are found once, on the project."""
    missing = _missing(facts, need)
    specs = _existing(facts) if missing else []
    lacking = {spec: sorted({*missing} - facts.granted_on_job(spec.name, tuple(missing))) for spec in specs}
    if len(specs) != 1 and all(lacking.values()):
        yield from permission_on_project(facts, need)
        return
    for spec, names in lacking.items():
        if names:
            words = ("run", "jobs", "add-iam-policy-binding", spec.name)
            place = {"region": facts.region, "project": facts.project}
            fix = gcloud(*words, **place, member=_self(facts), role=need.role)
            yield Finding(need.id, spec.command, _message(facts, need, names, f"the job {spec.name}"), fix)


def _existing(facts: Facts) -> list[JobSpec]:
    """Return the jobs that exist: no role can be granted on others."""
    with suppress(ServiceError):  # Other checks report it.
        return [spec for spec in facts.deployed() if spec.name in facts.existing_jobs()]
    return facts.deployed()


def _message(facts: Facts, need: Need, missing: list[str], resource: str) -> str:
    return f"{_account(facts) or 'This process'} may not {need.purpose}: {', '.join(missing)} on {resource}."


def _self(facts: Facts) -> str:
    account = _account(facts)
    return member(account) if account else UNKNOWN_MEMBER


def _account(facts: Facts) -> str | None:
    with suppress(ServiceError):  # The command shows the error.
        return facts.account()
    return None


def _accounts(facts: Facts) -> list[str]:
    """Return the service accounts of the jobs and of Cloud Scheduler."""
    accounts = [facts.job_account(spec) for spec in facts.deployed()]
    accounts += [account for spec in facts.scheduled() if (account := facts.scheduler_account(spec))]
    return list(dict.fromkeys(accounts))


def _service_accounts(facts: Facts) -> list[str]:
    return [account for account in _accounts(facts) if is_service_account(account)]


def account_missing(facts: Facts, account: str) -> Iterator[Finding]:
    if not is_service_account(account):
        setting, example = conf.setting_name("OPTIONS"), f"scheduler@{facts.project}.iam.gserviceaccount.com"
        fix = f"In the settings: {setting}: name a service account, such as {example}"
        yield Finding(
            "account_missing", None, f"{account} is not a service account, so nothing can run as it.", fix
        )
    elif not facts.account_exists(account):
        name, _, domain = account.partition("@")
        project = project_of(account, facts.project)
        fix = gcloud("iam", "service-accounts", "create", name, project=project)
        if domain == COMPUTE_DOMAIN:
            fix = gcloud("services", "enable", "compute.googleapis.com", project=project)
        yield Finding("account_missing", None, f"The service account {account} does not exist.", fix)


def account_disabled(facts: Facts, account: str) -> Iterator[Finding]:
    found = facts.service_account(account)
    if found is not None and found.get("disabled"):
        fix = gcloud("iam", "service-accounts", "enable", account, project=project_of(account, facts.project))
        yield Finding("account_disabled", None, f"The service account {account} is disabled.", fix)


def permission_act_as(facts: Facts, account: str) -> Iterator[Finding]:
    if facts.account_exists(account) and not facts.may_act_as(account):
        fix = gcloud(
            *("iam", "service-accounts", "add-iam-policy-binding", account),
            project=project_of(account, facts.project),
            member=_self(facts),
            role="roles/iam.serviceAccountUser",
        )
        caller = _account(facts) or "This process"
        message = f"{caller} may not attach {account} to jobs and schedules: iam.serviceAccounts.actAs is missing."
        yield Finding("permission_act_as", None, message, fix)


CHECKS = (
    Check(("api_disabled",), api_disabled),
    Check(
        ("permission_run", "permission_read"),
        permission_on_jobs,
        lambda facts: JOB_NEEDS if facts.deployed() else (),
    ),
    Check(
        ("permission_sync", "permission_schedules", "permission_logs", "permission_tasks"),
        permission_on_project,
        _project_needs,
    ),
    Check(("account_missing",), account_missing, _accounts),
    Check(("account_disabled",), account_disabled, _service_accounts),
    Check(("permission_act_as",), permission_act_as, _service_accounts),
)
