"""Check that the jobs can read their secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from cloudrun_jobs.argv.secret_ref import SecretRef
from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.deploy.desired import Secret
from cloudrun_jobs.deploy.plan import Existing
from cloudrun_jobs.doctor.checks.check import Check
from cloudrun_jobs.doctor.commands import gcloud, grant_on, manage
from cloudrun_jobs.doctor.facts import Facts
from cloudrun_jobs.doctor.findings import Finding
from cloudrun_jobs.exceptions import ServiceError
from cloudrun_jobs.spec import JobSpec

ACCESS = "secretmanager.versions.access"


class Use(NamedTuple):
    """A secret that a job reads."""

    spec: JobSpec
    project: str
    name: str
    version: str

    @property
    def path(self) -> str:
        return f"projects/{self.project}/secrets/{self.name}"


def uses(facts: Facts) -> list[Use]:
    """Return the secrets of the jobs' variables and files, and those in the arguments of jobs and schedules."""
    deployed = {spec.command: spec for spec in facts.deployed()}
    found = [
        Use(deployed[job.command_name], *_parts(name, facts.project), version or "latest")
        for job in facts.jobs
        if job.command_name in deployed
        for name, version in _references(facts, job, deployed[job.command_name])
    ]
    return list(dict.fromkeys(found))


def _parts(name: str, project: str) -> tuple[str, str]:
    """Return the project and the id of a secret, whose name may contain another project."""
    found = re.fullmatch(r"projects/([^/]+)/secrets/([^/]+)", name)
    return (found[1], found[2]) if found else (project, name)


def _references(facts: Facts, job: CloudRunJobs, spec: JobSpec) -> Iterator[tuple[str, str]]:
    for reference in spec.secrets.values():
        name, _, version = reference.partition(":")
        yield name, version
    for args in (spec.args, *(schedule.args for schedule in spec.schedules), _defaults(job, spec)):
        yield from ((value.name, value.version) for value in args.values() if isinstance(value, SecretRef))
    with suppress(ServiceError):  # Other checks report it.
        if existing := facts.existing_jobs().get(spec.name):
            yield from _existing(existing)


def _existing(existing: Existing) -> Iterator[tuple[str, str]]:
    """Yield the secrets that the deployed job reads, such as those of the service that it was synced from."""
    yield from ((value.name, value.version) for value in existing.fields.values() if isinstance(value, Secret))
    for volume in existing.message.template.template.volumes:
        if "secret" in volume:
            for item in volume.secret.items or [None]:
                yield volume.secret.secret, item.version if item else ""


def _defaults(job: CloudRunJobs, spec: JobSpec) -> dict[str, object]:
    if not spec.secret_options:
        return {}
    parser = job.create_parser("manage.py", spec.command)
    return {name: parser.get_default(name) for name in spec.secret_options}


def secret_missing(facts: Facts, use: Use) -> Iterator[Finding]:
    if not facts.secret_exists(use.path):
        # The value comes from the standard input.
        fix = gcloud("secrets", "create", use.name, data_file="-", project=use.project)
        account = facts.job_account(use.spec)
        if not facts.account_has(account, ACCESS):
            fix = f"{fix} && {_grant(use, account)}"
        message = f"{use.spec.command} needs the secret {use.name}, which does not exist in {use.project}."
        yield Finding("secret_missing", use.spec.command, message, fix)


def secret_version(facts: Facts, use: Use) -> Iterator[Finding]:
    if not facts.secret_exists(use.path) or (state := facts.secret_state(use.path, use.version)) == "ENABLED":
        return
    if state == "DISABLED" and use.version != "latest":
        flags = {"secret": use.name, "project": use.project}
        fix = gcloud("secrets", "versions", "enable", use.version, **flags)
    elif use.version == "latest":
        fix = gcloud("secrets", "versions", "add", use.name, data_file="-", project=use.project)
    else:  # A new version gets another number.
        versions = gcloud("secrets", "versions", "list", use.name, filter="state=ENABLED", project=use.project)
        fix = f"Name a version that `{versions}` shows, then {_sync(use)}"
    state = f"is {state.lower()}" if state else "does not exist"
    message = f"{use.spec.command} cannot read the secret {use.name}: its version {use.version} {state}."
    yield Finding("secret_version", use.spec.command, message, fix)


def secret_access(facts: Facts, use: Use) -> Iterator[Finding]:
    account = facts.job_account(use.spec)
    if not facts.secret_exists(use.path) or not facts.account_exists(account):
        return  # Other checks report it.
    if not facts.account_has(account, ACCESS, "secretmanager", f"v1/{use.path}"):
        message = f"{use.spec.command} cannot read the secret {use.name}: its account {account} has no access."
        yield Finding("secret_access", use.spec.command, message, _grant(use, account))


def _grant(use: Use, account: str) -> str:
    role = "roles/secretmanager.secretAccessor"
    return grant_on(("secrets",), use.name, account, role, project=use.project)


def _sync(use: Use) -> str:
    return manage("sync_cloudrun_jobs", "--command", use.spec.command)


CHECKS = (
    Check(("secret_missing",), secret_missing, uses),
    Check(("secret_version",), secret_version, uses),
    Check(("secret_access",), secret_access, uses),
)
