"""The faults that the tests plant, one for each kind of finding, and their fixes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from google.cloud import run_v2, scheduler_v1

from cloudrun_jobs import Schedule
from cloudrun_jobs.deploy.desired import OWNERSHIP_ANNOTATION
from cloudrun_jobs.models import JobRun
from tests.doctor.project import AGENT_ROLE, CALLER, REGION, Project, nightly

IMAGE = f"{REGION}-docker.pkg.dev/PROJECT/jobs/app"
LONG_AGO = datetime.now(UTC) - timedelta(days=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault. In `fix`, PROJECT stands for the project, AGENT for Cloud Scheduler's service agent, and
    SERVICE_URL for the address of the service. `mend` carries out a `fix` that is not a command of `manage.py`.
    """

    id: str
    plant: Callable[[Project], object]
    fix: str
    job: str | None = None
    mend: Callable[[Project], object] | None = None
    name: str = ""  # Distinguishes faults with the same id.

    def __str__(self) -> str:
        return self.name or self.id


def _edit(change: Callable[[run_v2.Job], object]) -> Callable[[Project], None]:
    """Return a function that changes the job `echo` like the console."""

    def plant(project: Project) -> None:
        job = project.job()
        change(job)
        project.update_job(job)

    return plant


def _container(job: run_v2.Job) -> run_v2.Container:
    return job.template.template.containers[0]


def _add_sidecar(job: run_v2.Job) -> None:
    _container(job).name = "job"
    job.template.template.containers.append(run_v2.Container(name="proxy", image="proxy:1"))


def _give_away(job: run_v2.Job) -> None:
    label = job.annotations[OWNERSHIP_ANNOTATION].replace("production", "staging")
    job.annotations = {OWNERSHIP_ANNOTATION: label}


def _take_back(job: run_v2.Job) -> None:
    label = job.annotations[OWNERSHIP_ANNOTATION].replace("staging", "production")
    job.annotations = {OWNERSHIP_ANNOTATION: label}


def _disown(job: run_v2.Job) -> None:
    job.annotations = {}


def _orphan_job(project: Project) -> None:
    project.values["BACKENDS"] = {"workers": {"BACKEND": "cloudrun_jobs.backends.celery.CeleryBackend"}}
    project.values["ROUTES"] = {"echo": "workers"}
    project.apply()


def _setting(name: str, value: Any) -> Callable[[Project], None]:
    """Return a function that changes an option; None removes it."""

    def change(project: Project) -> None:
        project.options[name] = value.replace("PROJECT", project.id) if isinstance(value, str) else value
        if value is None:
            project.options.pop(name, None)
        project.apply()

    return change


def _both(*steps: Callable[[Project], object]) -> Callable[[Project], None]:
    def run(project: Project) -> None:
        for step in steps:
            step(project)

    return run


def _sync(project: Project) -> None:
    project.manage("sync_cloudrun_jobs", "--command", "echo", "nightly")


def _without_accounts(project: Project) -> None:
    _setting("scheduler_service_account", None)(project)
    _setting("service_account", None)(project)
    _sync(project)


def _with_account(project: Project) -> None:
    _setting("scheduler_service_account", "scheduler@PROJECT.iam.gserviceaccount.com")(project)
    project.manage("sync_cloudrun_schedules", "--command", "nightly")


def _fail_job(project: Project) -> None:
    job = project.emulator._engine.store.jobs[f"{project.place}/jobs/echo-production"]
    job.terminal_condition = run_v2.Condition(state=run_v2.Condition.State.CONDITION_FAILED, message="Too bad.")


def _set_state(state: Any) -> Callable[[Project], None]:
    def change(project: Project) -> None:
        project.emulator.scheduler.entries[f"{project.place}/jobs/nightly-production"].job.state = state

    return change


def _move_schedules(project: Project) -> None:
    _setting("scheduler_region", "europe-west1")(project)
    project.manage("sync_cloudrun_schedules", "--command", "nightly")


def _fail_attempt(project: Project) -> None:
    job = project.emulator.scheduler.entries[f"{project.place}/jobs/nightly-production"].job
    job.status.code = 7


def _succeed(project: Project) -> None:
    project.emulator.scheduler.entries[f"{project.place}/jobs/nightly-production"].job.status.code = 0


def _oidc(**values: Any) -> Callable[[Project], None]:
    """Return a function that changes the settings of the web service's OIDC tokens."""

    def change(project: Project) -> None:
        oidc = {**project.values["HTTP"]["OIDC"], **values}
        project.values["HTTP"] = {"OIDC": oidc}
        project.apply()

    return change


def _accept(project: Project) -> None:
    """Change the settings as the fix says."""
    url, account = project.service().uri, project.account("scheduler")
    project.values["HTTP"] = {"OIDC": {"audience": url, "emails": [account], "commands": ["nightly"]}}
    project.apply()


def _policy(kind: str, name: str, *roles: str, account: str = "scheduler") -> Callable[[Project], None]:
    """Return a function that grants roles on a job or a service, as `add-iam-policy-binding` does."""

    def grant(project: Project) -> None:
        members = [f"serviceAccount:{project.account(account)}"]
        body = {"policy": {"bindings": [{"role": role, "members": members} for role in roles]}}
        project.owner("run", "POST", f"v2/{project.place}/{kind}/{name}:setIamPolicy", body=body)

    return grant


def _revoke(account: str, *roles: str) -> Callable[[Project], None]:
    def revoke(project: Project) -> None:
        project.revoke(project.account(account) if account != CALLER else CALLER, *roles)

    return revoke


def _grant(account: str, role: str) -> Callable[[Project], None]:
    def grant(project: Project) -> None:
        project.allow(project.account(account) if account != CALLER else CALLER, role)

    return grant


def _set_disabled(value: bool) -> Callable[[Project], None]:
    def change(project: Project) -> None:
        kept = {"deleted": False, "disabled": value}
        project.emulator._documents.put("account", project.account("scheduler"), kept)

    return change


def _set_deleted(project: Project, account: str) -> None:
    project.emulator._documents.put("account", account, {"deleted": True})


def _set_api(state: str) -> Callable[[Project], None]:
    def change(project: Project) -> None:
        api = f"v1/projects/{project.id}/services/logging.googleapis.com:{state}"
        project.owner("serviceusage", "POST", api, body={})

    return change


def _use_disabled_version(project: Project) -> None:
    project.add_secret("api-key")
    project.use_secret("api-key:1")
    version = f"v1/projects/{project.id}/secrets/api-key/versions/1:disable"
    project.owner("secretmanager", "POST", version, body={})


def _enable_version(project: Project) -> None:
    project.owner("secretmanager", "POST", f"v1/projects/{project.id}/secrets/api-key/versions/1:enable", body={})


def _use_unreadable_secret(project: Project) -> None:
    project.add_secret("api-key")
    project.allow_secret("api-key", project.account("scheduler"))
    project.use_secret()


def _record(command: str = "echo", **values: Any) -> Callable[[Project], object]:
    given = {"command": command, "environment": "production", "trigger": "delay", **values}
    return lambda _: JobRun.objects.create(**given)


def _forget_migration(_: Project) -> None:
    MigrationRecorder(connection).record_unapplied("cloudrun_jobs", "0006_permissions")


def _record_migration(_: Project) -> None:
    MigrationRecorder(connection).record_applied("cloudrun_jobs", "0006_permissions")


def _finish_runs(_: Project) -> None:
    JobRun.objects.all().delete()


def _local_locks(project: Project) -> None:
    project.values["LOCKS"] = {"BACKEND": "cloudrun_jobs.locks.local.LocalLocks"}
    project.apply()


def _database_locks(project: Project) -> None:
    project.values["LOCKS"] = {"BACKEND": "cloudrun_jobs.locks.database.DatabaseLocks"}
    project.apply()


SYNC_ECHO = "manage.py sync_cloudrun_jobs --command echo"
SYNC_NIGHTLY = "manage.py sync_cloudrun_schedules --command nightly"
WHERE = f"--region={REGION} --project=PROJECT"
SCHEDULER = "--member=serviceAccount:scheduler@PROJECT.iam.gserviceaccount.com"
DEPLOYER = f"--member=serviceAccount:{CALLER}"
GRANT_SECRET = (
    "gcloud secrets add-iam-policy-binding api-key --project=PROJECT"
    " --member=serviceAccount:jobs-runtime@PROJECT.iam.gserviceaccount.com"
    " --role=roles/secretmanager.secretAccessor"
)
RECONCILE = {"schedule": "*/5 * * * *"}

# Fixed by a command of `manage.py`.
MANAGED = (
    Fault(
        id="job_missing",
        job="echo",
        plant=Project.delete_job,
        fix=f"manage.py sync_cloudrun_jobs --image {IMAGE}:1 --command echo",
    ),
    Fault(id="job_not_synced", job="echo", plant=_edit(_disown), fix=SYNC_ECHO),
    Fault(
        id="retries_default",
        job="echo",
        plant=_edit(lambda job: setattr(job.template.template, "max_retries", 3)),
        fix=SYNC_ECHO,
    ),
    Fault(
        id="entrypoint_differs",
        job="echo",
        plant=_edit(lambda job: setattr(_container(job), "command", ["gunicorn"])),
        fix=SYNC_ECHO,
    ),
    Fault(
        id="job_drift",
        job="echo",
        plant=_edit(lambda job: setattr(job.template.template, "timeout", timedelta(seconds=5))),
        fix=SYNC_ECHO,
    ),
    Fault(
        id="job_orphaned",
        job="echo",
        plant=_orphan_job,
        fix="manage.py sync_cloudrun_jobs --prune --command echo",
    ),
    Fault(
        id="image_differs",
        job="echo",
        plant=lambda project: project.manage(
            "sync_cloudrun_jobs", "--image", project.image(2), "--command", "nightly"
        ),
        fix=f"manage.py sync_cloudrun_jobs --image {IMAGE}:2 --command echo",
    ),
    Fault(id="schedule_missing", job="nightly", plant=Project.delete_schedule, fix=SYNC_NIGHTLY),
    Fault(
        id="schedule_drift",
        job="nightly",
        plant=lambda project: project.update_schedule(schedule="0 4 * * *"),
        fix=SYNC_NIGHTLY,
    ),
    Fault(
        id="schedule_orphaned",
        job="nightly",
        plant=lambda project: project.declare(nightly, schedule=None),
        fix="manage.py sync_cloudrun_schedules --prune --command nightly",
    ),
    Fault(
        id="attempt_deadline_short",
        job="nightly",
        plant=_both(
            Project.add_service, lambda project: project.update_schedule(attempt_deadline=timedelta(minutes=2))
        ),
        fix=SYNC_NIGHTLY,
    ),
)

# Fixed by a command of gcloud.
GCLOUD = (
    Fault(
        id="api_disabled",
        plant=_set_api("disable"),
        fix="gcloud services enable logging.googleapis.com --project=PROJECT",
        mend=_set_api("enable"),
    ),
    Fault(
        id="permission_schedules",
        plant=_both(_grant(CALLER, "roles/cloudscheduler.viewer"), _revoke(CALLER, "roles/cloudscheduler.admin")),
        fix=f"gcloud projects add-iam-policy-binding PROJECT {DEPLOYER} --role=roles/cloudscheduler.admin"
        " --condition=None",
        mend=_grant(CALLER, "roles/cloudscheduler.admin"),
    ),
    Fault(
        id="account_missing",
        plant=lambda project: project.delete_account("scheduler"),
        fix="gcloud iam service-accounts create scheduler --project=PROJECT",
        mend=lambda project: project.create_account("scheduler"),
    ),
    Fault(
        id="scheduler_role",
        job="nightly",
        plant=_revoke("scheduler", "roles/run.jobsExecutorWithOverrides"),
        fix=f"gcloud run jobs add-iam-policy-binding nightly-production {WHERE} {SCHEDULER}"
        " --role=roles/run.jobsExecutorWithOverrides",
        mend=_policy("jobs", "nightly-production", "roles/run.jobsExecutorWithOverrides"),
    ),
    Fault(
        id="scheduler_role",
        name="scheduler_role_without_overrides",
        job="nightly",
        plant=_both(
            _revoke("scheduler", "roles/run.jobsExecutorWithOverrides"),
            _policy("jobs", "nightly-production", "roles/run.invoker"),
        ),
        fix=f"gcloud run jobs add-iam-policy-binding nightly-production {WHERE} {SCHEDULER}"
        " --role=roles/run.jobsExecutorWithOverrides",
        mend=_policy("jobs", "nightly-production", "roles/run.jobsExecutorWithOverrides"),
    ),
    Fault(
        id="scheduler_agent",
        plant=lambda project: project.revoke(project.agent, AGENT_ROLE),
        fix=f"gcloud projects add-iam-policy-binding PROJECT --member=serviceAccount:AGENT --role={AGENT_ROLE}"
        " --condition=None",
        mend=lambda project: project.allow(project.agent, AGENT_ROLE),
    ),
    Fault(
        id="container_ambiguous",
        job="echo",
        plant=_edit(_add_sidecar),
        fix=f"gcloud run jobs update echo-production --remove-containers=proxy {WHERE}",
        mend=_edit(lambda job: job.template.template.containers.pop()),
    ),
    Fault(
        id="job_not_ready",
        job="echo",
        plant=_fail_job,
        fix=f"gcloud run jobs update echo-production --image={IMAGE}:1 {WHERE}",
        mend=_edit(lambda job: None),
    ),
    Fault(
        id="schedule_failing",
        job="nightly",
        plant=_fail_attempt,
        fix=f"gcloud scheduler jobs run nightly-production --location={REGION} --project=PROJECT",
        mend=_succeed,
    ),
    Fault(
        id="schedule_elsewhere",
        job="nightly",
        plant=_move_schedules,
        fix=f"gcloud scheduler jobs delete nightly-production --location={REGION} --project=PROJECT",
        mend=Project.delete_schedule,
    ),
    Fault(
        id="schedule_disabled",
        job="nightly",
        plant=_set_state(scheduler_v1.Job.State.DISABLED),
        fix=f"gcloud scheduler jobs delete nightly-production --location={REGION} --project=PROJECT --quiet"
        f" && {SYNC_NIGHTLY}",
        mend=_both(
            Project.delete_schedule,
            lambda project: project.manage("sync_cloudrun_schedules", "--command", "nightly"),
        ),
    ),
    Fault(
        id="schedule_overdue",
        job="nightly",
        plant=_record(
            "nightly",
            schedule="nightly-production",
            scheduled_for=LONG_AGO,
            status="succeeded",
            trigger="schedule",
        ),
        fix=f"gcloud scheduler jobs run nightly-production --location={REGION} --project=PROJECT",
        mend=_finish_runs,
    ),
    Fault(
        id="service_cold",
        plant=_both(
            Project.add_service,
            lambda project: project.update_service(scaling=run_v2.RevisionScaling(min_instance_count=0)),
        ),
        fix=f"gcloud run services update web --min-instances=1 {WHERE}",
        mend=lambda project: project.update_service(scaling=run_v2.RevisionScaling(min_instance_count=1)),
    ),
    Fault(
        id="service_timeout",
        job="nightly",
        plant=_both(Project.add_service, lambda project: project.update_service(timeout=timedelta(seconds=60))),
        fix=f"gcloud run services update web --timeout=300 {WHERE}",
        mend=lambda project: project.update_service(timeout=timedelta(seconds=300)),
    ),
    Fault(
        id="service_invoker",
        job="nightly",
        plant=_both(Project.add_service, _revoke("scheduler", "roles/run.invoker")),
        fix=f"gcloud run services add-iam-policy-binding web {WHERE} {SCHEDULER} --role=roles/run.invoker",
        mend=_policy("services", "web", "roles/run.invoker"),
    ),
    Fault(
        id="service_traffic",
        plant=_both(
            Project.add_service,
            Project.freeze_traffic,
            lambda project: project.update_service(timeout=timedelta(seconds=301)),
        ),
        fix=f"gcloud run services update-traffic web --to-latest {WHERE}",
        mend=Project.freeze_traffic,
    ),
    Fault(
        id="secret_missing",
        job="echo",
        plant=Project.use_secret,
        fix=f"gcloud secrets create api-key --data-file=- --project=PROJECT && {GRANT_SECRET}",
        mend=lambda project: project.add_secret("api-key"),
    ),
    Fault(
        id="secret_version",
        job="echo",
        plant=_use_disabled_version,
        fix="gcloud secrets versions enable 1 --secret=api-key --project=PROJECT",
        mend=_enable_version,
    ),
    Fault(
        id="secret_access",
        job="echo",
        plant=_use_unreadable_secret,
        fix=GRANT_SECRET,
        mend=lambda project: project.allow_secret("api-key"),
    ),
)

# Fixed in the settings or in the code, or by a command that other tests cover.
WRITTEN = (
    Fault(
        id="migrations_missing",
        plant=_forget_migration,
        fix="manage.py migrate --database=default",
        mend=_record_migration,
    ),
    Fault(
        id="account_disabled",
        plant=_set_disabled(True),
        fix="gcloud iam service-accounts enable scheduler@PROJECT.iam.gserviceaccount.com --project=PROJECT",
        mend=_set_disabled(False),
    ),
    Fault(
        id="account_missing",
        name="default_account_missing",
        plant=_both(
            _setting("service_account", None),
            _sync,
            lambda project: _set_deleted(project, project.default_account),
        ),
        fix="gcloud services enable compute.googleapis.com --project=PROJECT",
        mend=_both(_setting("service_account", "jobs-runtime@PROJECT.iam.gserviceaccount.com"), _sync),
    ),
    Fault(
        id="reconciler_late",
        job="echo",
        plant=_record(status="running", started_at=LONG_AGO),
        fix="manage.py cloudrun_jobs reconcile",
        mend=_finish_runs,
    ),
    Fault(
        id="runs_waiting",
        job="echo",
        plant=_record(sending_until=LONG_AGO),
        fix="manage.py cloudrun_jobs reconcile",
        mend=_finish_runs,
    ),
    Fault(
        id="job_undeployable",
        job="echo",
        plant=_edit(_give_away),
        fix="Rename the command, or the environment.",
        mend=_edit(_take_back),
    ),
    Fault(
        id="region_unsupported",
        plant=_setting("scheduler_region", "europe-north1"),
        fix="In the settings: CLOUDRUN_JOBS['OPTIONS']['scheduler_region'] = 'europe-central2'",
        mend=_both(
            Project.delete_schedule,
            _setting("scheduler_region", "europe-central2"),
            lambda project: project.manage("sync_cloudrun_schedules", "--command", "nightly"),
        ),
    ),
    Fault(
        id="scheduler_account_unset",
        job="nightly",
        plant=_without_accounts,
        fix="In the settings: CLOUDRUN_JOBS['OPTIONS']['scheduler_service_account'] ="
        " 'scheduler@PROJECT.iam.gserviceaccount.com'",
        mend=_with_account,
    ),
    Fault(
        id="service_url_unset",
        job="nightly",
        plant=_both(Project.add_service, _setting("service_url", None)),
        fix="In the settings: CLOUDRUN_JOBS['OPTIONS']['service_url'] = the URL that `gcloud run services list`"
        " shows",
        mend=lambda project: _setting("service_url", project.service().uri)(project),
    ),
    Fault(
        id="service_missing",
        plant=_both(Project.add_service, lambda project: project.move_service("https://other.run.app")),
        fix="In the settings: CLOUDRUN_JOBS['OPTIONS']['service_url'] = the URL that `gcloud run services list`"
        " shows",
        mend=lambda project: project.move_service(project.service().uri),
    ),
    Fault(
        id="schedule_undeployable",
        job="nightly",
        plant=lambda project: project.declare(nightly, schedule=[Schedule("0 3 * * *", args={"partner": 7})]),
        fix="manage.py check",
        mend=lambda project: project.declare(nightly, schedule="0 3 * * *"),
    ),
    Fault(
        id="reconcile_unscheduled",
        plant=lambda project: project.set(RECONCILE={}),
        fix="In the settings: CLOUDRUN_JOBS['RECONCILE'] = {'schedule': '*/5 * * * *'}, then"
        f" manage.py sync_cloudrun_jobs --image {IMAGE}:1 && manage.py sync_cloudrun_schedules",
        mend=lambda project: project.set(RECONCILE=RECONCILE),
    ),
    Fault(
        id="oidc_rejected",
        name="oidc_audience",
        job="nightly",
        plant=_both(Project.add_service, _oidc(audience="https://old.example.com")),
        fix="In the settings: CLOUDRUN_JOBS['HTTP']['OIDC']['audience'] = 'SERVICE_URL'",
        mend=_accept,
    ),
    Fault(
        id="oidc_rejected",
        name="oidc_email",
        job="nightly",
        plant=_both(Project.add_service, _oidc(emails=["a@example.com"])),
        fix="In the settings: CLOUDRUN_JOBS['HTTP']['OIDC']['emails'] ="
        " ['a@example.com', 'scheduler@PROJECT.iam.gserviceaccount.com']",
        mend=_accept,
    ),
    Fault(
        id="oidc_rejected",
        name="oidc_commands",
        job="nightly",
        plant=_both(Project.add_service, _oidc(commands=["echo"])),
        fix="In the settings: CLOUDRUN_JOBS['HTTP']['OIDC']['commands'] = ['echo', 'nightly']",
        mend=_accept,
    ),
    Fault(
        id="locks_private",
        plant=_local_locks,
        fix="In the settings: CLOUDRUN_JOBS['LOCKS'] = {'BACKEND': 'cloudrun_jobs.locks.database.DatabaseLocks'}",
        mend=_database_locks,
    ),
    Fault(
        id="rate_limited",
        job="echo",
        plant=_record(status="failed", finished_at=datetime.now(UTC), error_message="429 Client Error"),
        fix="In the class of echo: vpc = {'network': 'default', 'subnetwork': 'default', 'egress': 'all-traffic'},"
        " with Cloud NAT and an address of its own in that network",
        mend=_finish_runs,
    ),
)

# Faults that can follow each other in one project: each leaves it healthy, and the last ones not as it was.
ORDER = {
    "jobs": (
        *("job_missing", "job_not_ready", "retries_default", "entrypoint_differs", "job_drift"),
        *("job_undeployable", "container_ambiguous", "reconcile_unscheduled", "job_not_synced", "image_differs"),
        *("job_orphaned",),
    ),
    "schedules": (
        *("schedule_missing", "schedule_drift", "schedule_failing", "schedule_disabled", "schedule_overdue"),
        *("schedule_undeployable", "schedule_elsewhere"),
    ),
    "service": (
        *("attempt_deadline_short", "service_cold", "service_timeout", "service_invoker", "service_url_unset"),
        *("service_missing", "oidc_audience", "oidc_email", "oidc_commands", "service_traffic"),
    ),
    "access": (
        *("api_disabled", "permission_schedules", "scheduler_agent", "account_missing", "account_disabled"),
        *("scheduler_role", "scheduler_role_without_overrides", "scheduler_account_unset"),
        *("default_account_missing",),
    ),
    "secrets": ("secret_missing", "secret_version", "secret_access", "schedule_orphaned"),
    "runtime": (
        *("migrations_missing", "reconciler_late", "runs_waiting", "rate_limited", "locks_private"),
        *("region_unsupported",),
    ),
}
_FAULTS = {str(fault): fault for fault in (*MANAGED, *GCLOUD, *WRITTEN)}
GROUPS = {group: [_FAULTS[name] for name in names] for group, names in ORDER.items()}
