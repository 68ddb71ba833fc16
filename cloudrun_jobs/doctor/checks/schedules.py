"""Check the Scheduler jobs, and that Cloud Scheduler may start the jobs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from cloudrun_jobs import conf
from cloudrun_jobs.deploy.drift import command_of
from cloudrun_jobs.deploy.plan import Change, Existing
from cloudrun_jobs.deploy.plan.printing import describe_field, shown_fields
from cloudrun_jobs.doctor.checks.check import Check
from cloudrun_jobs.doctor.commands import IMAGE, SCHEDULER_AGENT, gcloud, grant_on, manage
from cloudrun_jobs.doctor.facts import Facts
from cloudrun_jobs.doctor.findings import Finding
from cloudrun_jobs.doctor.regions import nearest
from cloudrun_jobs.exceptions import CloudRunJobsError, ServiceError
from cloudrun_jobs.spec import JobSpec
from cloudrun_jobs.spec.ownership import SYNC as SYNC_KIND

SYNC = "sync_cloudrun_schedules"
RECONCILE = "CLOUDRUN_JOBS['RECONCILE'] = {'schedule': '*/5 * * * *'}"
AGENT_ROLE = "roles/cloudscheduler.serviceAgent"
TOKEN_ROLES = ("roles/owner", "roles/iam.serviceAccountTokenCreator")  # They include those of AGENT_ROLE.
START_PERMISSIONS = ("run.jobs.run", "run.jobs.runWithOverrides")
# The gRPC status codes that Cloud Scheduler reports for its last attempt.
CODES = {
    4: "DEADLINE_EXCEEDED: it took longer than its attempt-deadline",
    5: "NOT_FOUND",
    7: "PERMISSION_DENIED",
    8: "RESOURCE_EXHAUSTED: HTTP status 429",
    13: "INTERNAL: HTTP status 500",
    14: "UNAVAILABLE: HTTP status 503",
    16: "UNAUTHENTICATED",
}


def _sync(spec: JobSpec) -> str:
    return manage(SYNC, "--command", spec.command)


def _changes(facts: Facts, spec: JobSpec) -> list[Change]:
    return [change for change in facts.schedule_drift().plan.changes if command_of(change) == spec.command]


def _unset(facts: Facts, spec: JobSpec) -> Iterator[Finding]:
    """Yield the settings without which the schedules cannot be planned."""
    if facts.scheduler_account(spec) is None:
        setting = conf.setting_name("OPTIONS", "scheduler_service_account")
        message = f"{spec.command}: no service account is set for Cloud Scheduler to start the job."
        fix = f"{setting} = 'scheduler@{facts.project}.iam.gserviceaccount.com'"
        yield Finding("scheduler_account_unset", spec.command, message, f"In the settings: {fix}")
    if spec.target == "service" and facts.backend.service_url is None:
        setting = conf.setting_name("OPTIONS", "service_url")
        message = f"{spec.command}: runs in the web service, whose URL is not set."
        fix = f"In the settings: {setting} = the URL that `gcloud run services list` shows"
        yield Finding("service_url_unset", spec.command, message, fix)


def region_unsupported(facts: Facts, _: None) -> Iterator[Finding]:
    if not facts.scheduled() or facts.scheduler_region in (served := facts.scheduler_regions()):
        return
    setting = conf.setting_name("OPTIONS", "scheduler_region")
    message = f"Cloud Scheduler does not serve the region {facts.scheduler_region}."
    region = nearest(facts.scheduler_region, served)
    value = repr(region) if region else "a region that `gcloud scheduler locations list` shows"
    fix = f"In the settings: {setting} = {value}"
    yield Finding("region_unsupported", None, message, fix)


def schedule_undeployable(facts: Facts, command: str) -> Iterator[Finding]:
    error = facts.schedule_drift().errors[command]
    # The checks of the settings and of the job report their own.
    if not _is_reported(facts, command, error):
        yield Finding("schedule_undeployable", command, error.args[0], error.hint or manage("check"))


def _is_reported(facts: Facts, command: str, error: CloudRunJobsError) -> bool:
    with suppress(ServiceError):  # Other checks report it.
        if str(facts.job_drift().errors.get(command)) == str(error):
            return True
    return any(list(_unset(facts, spec)) for spec in facts.scheduled() if spec.command == command)


def schedule_missing(facts: Facts, spec: JobSpec) -> Iterator[Finding]:
    missing = [change for change in _changes(facts, spec) if change.action == "create"]
    if missing:
        names = ", ".join(change.id for change in missing)
        message = f"Not in Cloud Scheduler, {facts.scheduler_region}: {names}."
        yield Finding("schedule_missing", spec.command, message, _sync(spec))


def schedule_fields(facts: Facts, spec: JobSpec) -> Iterator[Finding]:
    for change in _changes(facts, spec):
        existing = change.existing
        if existing is None or existing.trouble:
            continue
        fields = {field.name: field for field in shown_fields(change)}
        deadline = fields.get("attempt_deadline")
        if deadline and spec.runs_in_request and deadline.old < spec.timeout:
            del fields["attempt_deadline"]
            message = (
                f"Cloud Scheduler gives up {change.id} after {deadline.old.total_seconds():g} seconds, its"
                f" attempt-deadline, but the job's timeout is {spec.timeout.total_seconds():g}: it ends with 504."
            )
            yield Finding("attempt_deadline_short", spec.command, message, _sync(spec))
        if fields:
            differing = ", ".join(map(describe_field, fields.values()))
            message = f"The Scheduler job {change.id} differs from the code: {differing}."
            yield Finding("schedule_drift", spec.command, message, _sync(spec))


def schedule_orphaned(facts: Facts, change: Change) -> Iterator[Finding]:
    command = command_of(change)
    words = ("--command", str(command)) if command in facts.commands() else ()
    message = f"The Scheduler job {change.id} was synced from a command that no longer declares it."
    yield Finding("schedule_orphaned", command, message, manage(SYNC, "--prune", *words))


def _orphans(facts: Facts) -> tuple[Change, ...]:
    orphans = facts.schedule_drift().plan.orphans
    return tuple(change for change in orphans if not is_unscheduled_reconcile(command_of(change)))


def is_unscheduled_reconcile(command: str | None) -> bool:
    """Return True for what is left of RECONCILE without a schedule: another check says what to do."""
    return command == conf.RECONCILE_COMMAND and not conf.load().reconcile.get("schedule")


def schedule_elsewhere(facts: Facts, existing: Existing) -> Iterator[Finding]:
    """After a change of the region, Cloud Scheduler would start the jobs twice."""
    owner = existing.ownership
    if owner is None or owner.kind != SYNC_KIND or owner.environment != facts.backend.settings.environment:
        return
    if facts.is_selected(owner.command):
        words = ("scheduler", "jobs", "delete", existing.id)
        fix = gcloud(*words, location=facts.region, project=facts.project)
        message = (
            f"The Scheduler job {existing.id} is in {facts.region}, though schedules are in"
            f" {facts.scheduler_region}: both start {owner.command}."
        )
        yield Finding("schedule_elsewhere", owner.command, message, fix)


def _existing(facts: Facts, spec: JobSpec) -> Iterator[tuple[str, Existing]]:
    for schedule in spec.schedules:
        name = spec.scheduler_job_id(schedule)
        if existing := facts.existing_schedules().get(name):
            yield name, existing


def schedule_disabled(facts: Facts, spec: JobSpec) -> Iterator[Finding]:
    for name, existing in _existing(facts, spec):
        if trouble := existing.trouble:
            delete = gcloud(
                "scheduler", "jobs", "delete", name, location=facts.scheduler_region, project=facts.project
            )
            message = f"The Scheduler job {name} does not run: {trouble}."
            yield Finding("schedule_disabled", spec.command, message, f"{delete} --quiet && {_sync(spec)}")


def schedule_failing(facts: Facts, spec: JobSpec) -> Iterator[Finding]:
    for name, existing in _existing(facts, spec):
        if code := existing.message.status.code:
            message = f"The last attempt of the Scheduler job {name} failed: {CODES.get(code, f'code {code}')}."
            fix = gcloud("scheduler", "jobs", "run", name, location=facts.scheduler_region, project=facts.project)
            yield Finding("schedule_failing", spec.command, message, fix)


def scheduler_role(facts: Facts, spec: JobSpec) -> Iterator[Finding]:
    account = facts.scheduler_account(spec)
    if account is None or spec.target == "service" or spec.name not in facts.existing_jobs():
        return
    if not facts.account_exists(account):
        return  # Another check reports it.
    job = f"v2/{facts.backend.parent}/jobs/{spec.name}"
    missing = [name for name in START_PERMISSIONS if not facts.account_has(account, name, "run", job)]
    if missing:
        where = {"region": facts.region, "project": facts.project}
        fix = grant_on(("run", "jobs"), spec.name, account, "roles/run.jobsExecutorWithOverrides", **where)
        message = (
            f"Cloud Scheduler cannot start {spec.name}: {account} lacks {', '.join(missing)} on it; groups are not"
            " searched."
        )
        yield Finding("scheduler_role", spec.command, message, fix)


def scheduler_agent(facts: Facts, _: None) -> Iterator[Finding]:
    """Without its role, Cloud Scheduler cannot create the tokens of its requests."""
    if not facts.scheduled() or not (number := facts.project_number()):
        return
    agent = SCHEDULER_AGENT.format(number)
    if not facts.has_project_role(agent, AGENT_ROLE, *TOKEN_ROLES):
        fix = grant_on(("projects",), facts.project, agent, AGENT_ROLE)
        message = f"Cloud Scheduler cannot create tokens: its service agent {agent} lacks {AGENT_ROLE}."
        yield Finding("scheduler_agent", None, message, fix)


def reconcile_unscheduled(facts: Facts, _: None) -> Iterator[Finding]:
    consequence = "a run whose container died stays unfinished, or is never dispatched."
    image = ""
    if facts.specs() and not conf.load().reconcile.get("schedule"):
        with suppress(ServiceError):  # Other checks report it.
            image = facts.usual_image()
        jobs = manage("sync_cloudrun_jobs", "--image", image or IMAGE)
        fix = f"In the settings: {RECONCILE}, then {jobs} && {manage(SYNC)}"
        yield Finding("reconcile_unscheduled", None, f"No schedule reconciles runs: {consequence}", fix)
    for command, name in paused(facts):
        if command == conf.RECONCILE_COMMAND:
            message = f"{name}, which reconciles runs, is paused: {consequence}"
            yield Finding("reconcile_unscheduled", None, message, manage("cloudrun_jobs", "resume", command))


def paused(facts: Facts) -> list[tuple[str, str]]:
    """Return the commands and the names of the Scheduler jobs that were paused by hand. They are not findings."""
    found = [
        (spec.command, name, existing) for spec in facts.scheduled() for name, existing in _existing(facts, spec)
    ]
    return [(command, name) for command, name, existing in found if existing.paused]


CHECKS = (
    Check(("region_unsupported",), region_unsupported),
    Check(("scheduler_account_unset", "service_url_unset"), _unset, Facts.scheduled),
    Check(("schedule_undeployable",), schedule_undeployable, lambda facts: facts.schedule_drift().errors),
    Check(("schedule_missing",), schedule_missing, Facts.scheduled),
    Check(("attempt_deadline_short", "schedule_drift"), schedule_fields, Facts.scheduled),
    Check(("schedule_orphaned",), schedule_orphaned, _orphans),
    Check(("schedule_elsewhere",), schedule_elsewhere, Facts.schedules_elsewhere),
    Check(("schedule_disabled",), schedule_disabled, Facts.scheduled),
    Check(("schedule_failing",), schedule_failing, Facts.scheduled),
    Check(("scheduler_role",), scheduler_role, Facts.scheduled),
    Check(("scheduler_agent",), scheduler_agent),
    Check(("reconcile_unscheduled",), reconcile_unscheduled),
)
