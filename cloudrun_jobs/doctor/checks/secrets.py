"""Check that the jobs can read their secrets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cloudrun_jobs.argv.secret_ref import SecretRef
from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.doctor.checks.check import Check
from cloudrun_jobs.doctor.commands import gcloud, member
from cloudrun_jobs.doctor.facts import Facts
from cloudrun_jobs.doctor.findings import Finding
from cloudrun_jobs.spec import JobSpec

ACCESS = "secretmanager.versions.access"


class Use(NamedTuple):
    """A secret that a job reads."""

    spec: JobSpec
    name: str
    version: str


def _uses(facts: Facts) -> list[Use]:
    """Return the secrets of the jobs' variables, and those that the arguments of schedules and jobs refer to."""
    deployed = {spec.command: spec for spec in facts.deployed()}
    found = [
        Use(deployed[job.command_name], *_parts(reference))
        for job in facts.jobs
        if job.command_name in deployed
        for reference in _references(job, deployed[job.command_name])
    ]
    return list(dict.fromkeys(found))


def _parts(reference: str) -> tuple[str, str]:
    name, _, version = reference.partition(":")
    return name, version or "latest"


def _references(job: CloudRunJobs, spec: JobSpec) -> Iterator[str]:
    yield from spec.secrets.values()
    for args in (spec.args, *(schedule.args for schedule in spec.schedules), _defaults(job, spec)):
        yield from (value.reference for value in args.values() if isinstance(value, SecretRef))


def _defaults(job: CloudRunJobs, spec: JobSpec) -> dict[str, object]:
    if not spec.secret_options:
        return {}
    parser = job.create_parser("manage.py", spec.command)
    return {name: parser.get_default(name) for name in spec.secret_options}


def secret_missing(facts: Facts, use: Use) -> Iterator[Finding]:
    if not facts.secret_exists(use.name):
        fix = gcloud("secrets", "create", use.name, data_file="FILE", project=facts.project)
        account = facts.job_account(use.spec)
        if not facts.account_has(account, ACCESS):
            fix = f"{fix} && {_grant(facts, use, account)}"
        message = f"{use.spec.command} needs the secret {use.name}, which does not exist in {facts.project}."
        yield Finding("secret_missing", use.spec.command, message, fix)


def secret_version(facts: Facts, use: Use) -> Iterator[Finding]:
    if not facts.secret_exists(use.name) or (state := facts.secret_state(use.name, use.version)) == "ENABLED":
        return
    if state == "DISABLED" and use.version != "latest":
        flags = {"secret": use.name, "project": facts.project}
        fix = gcloud("secrets", "versions", "enable", use.version, **flags)
    else:
        fix = gcloud("secrets", "versions", "add", use.name, data_file="FILE", project=facts.project)
    state = f"is {state.lower()}" if state else "does not exist"
    message = f"{use.spec.command} cannot read the secret {use.name}: its version {use.version} {state}."
    yield Finding("secret_version", use.spec.command, message, fix)


def secret_access(facts: Facts, use: Use) -> Iterator[Finding]:
    account = facts.job_account(use.spec)
    if not facts.secret_exists(use.name) or not facts.account_exists(account):
        return  # Other checks report it.
    path = f"v1/projects/{facts.project}/secrets/{use.name}"
    if not facts.account_has(account, ACCESS, "secretmanager", path):
        message = f"{use.spec.command} cannot read the secret {use.name}: its account {account} has no access."
        yield Finding("secret_access", use.spec.command, message, _grant(facts, use, account))


def _grant(facts: Facts, use: Use, account: str) -> str:
    return gcloud(
        *("secrets", "add-iam-policy-binding", use.name),
        project=facts.project,
        member=member(account),
        role="roles/secretmanager.secretAccessor",
    )


CHECKS = (
    Check(("secret_missing",), secret_missing, _uses),
    Check(("secret_version",), secret_version, _uses),
    Check(("secret_access",), secret_access, _uses),
)
