"""What `doctor` checks beyond the table of faults, what it cannot check, and its output."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from google.cloud import run_v2, scheduler_v1
from pytest_django import Settings
from redis import Redis

from cloudrun_jobs import Schedule, SecretRef
from cloudrun_jobs.backends.cloudrun.rest import RestClient
from cloudrun_jobs.backends.cloudrun.server import Server
from cloudrun_jobs.deploy.desired import OWNERSHIP_ANNOTATION
from cloudrun_jobs.doctor import execution
from cloudrun_jobs.doctor.checks import runtime
from cloudrun_jobs.doctor.facts import Facts
from cloudrun_jobs.doctor.regions import PLACES, nearest
from cloudrun_jobs.doctor.roles import ROLES, grants
from cloudrun_jobs.doctor.table import CHECKS, IDS
from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.emulator.iam.roles import roles as published_roles
from cloudrun_jobs.emulator.project.locations import RUN_REGIONS, SCHEDULER_REGIONS
from cloudrun_jobs.locks.database import DatabaseLocks
from cloudrun_jobs.management.selection import cloudrun_backend
from cloudrun_jobs.spec.ownership import OwnershipLabel
from tests.doctor.faults import GCLOUD, MANAGED, SYNC_ECHO, WRITTEN
from tests.doctor.project import CALLER, REGION, Project, nightly
from tests.servers import redis as redis_servers
from tests.servers.process import Server as LockServer

DEVELOPER, SCHEDULER_ADMIN = "roles/run.developer", "roles/cloudscheduler.admin"
CHECKED = ("/bin/sh", "-c", "echo System check identified no issues.")
SECRETS = {"secret_missing", "secret_version", "secret_access"}  # Of the example's jobs.
# Planted in this module.
OTHERS = {
    "permission_run",
    "permission_read",
    "permission_sync",
    "permission_logs",
    "permission_act_as",
    "permission_tasks",
    "command_unreadable",
    "image_missing",
    "database_unreachable",
    "lock_server_unreachable",
    "locks_evicted",
    "clock_differs",
    "records_private",
    "execution_failed",
}


def test_every_kind_of_finding_is_planted() -> None:
    """The table and this module plant a fault for each id."""
    planted = {fault.id for fault in (*MANAGED, *GCLOUD, *WRITTEN)}

    assert planted | OTHERS == set(IDS)
    assert planted & OTHERS == set()


@pytest.mark.parametrize(
    ("role", "instead", "ids"),
    [
        (DEVELOPER, ["roles/run.viewer"], ["permission_run", "permission_sync"]),
        (DEVELOPER, ["roles/run.jobsExecutorWithOverrides"], ["permission_read", "permission_sync"]),
        ("roles/iam.serviceAccountUser", [], ["permission_act_as", "permission_act_as"]),
    ],
)
def test_missing_permissions(project: Project, role: str, instead: list[str], ids: list[str]) -> None:
    """What the caller lacks is found: once if it is so of all jobs, and of each account."""
    project.roles += [(CALLER, each) for each in instead]
    project.revoke(CALLER, role)
    found = project.doctor()

    assert (sorted(found.ids), found.status) == (ids, 1)


def test_caller_without_any_role_on_jobs(project: Project) -> None:
    """Everything that it lacks is found, and what it cannot see is named."""
    project.revoke(CALLER, DEVELOPER, "roles/logging.viewer", "roles/iam.securityReviewer")
    found = project.doctor()

    assert sorted(found.ids) == ["permission_logs", "permission_read", "permission_run", "permission_sync"]
    assert "Not checked: job_undeployable, job_missing" in found.messages


def test_permission_on_the_job_is_enough(project: Project) -> None:
    """A role on one job grants what is needed for it."""
    project.roles.append((CALLER, "roles/run.viewer"))
    project.revoke(CALLER, DEVELOPER)
    binding = {"role": "roles/run.jobsExecutorWithOverrides", "members": [f"serviceAccount:{CALLER}"]}
    path = f"v2/{project.place}/jobs/echo-production:setIamPolicy"
    project.owner("run", "POST", path, body={"policy": {"bindings": [binding]}})
    found = project.doctor()

    assert [(each["id"], each["job"]) for each in found.findings] == [
        ("permission_run", "nightly"),
        ("permission_sync", None),
    ]


def test_cloud_tasks_needs_other_permissions(project: Project) -> None:
    """With reservations in Cloud Tasks, its permissions are tested as well, one role each."""
    project.options.update(reservations="cloud_tasks", tasks_queue="runs")
    project.apply()
    found = project.doctor()

    assert found.ids == ["permission_tasks", "permission_tasks"]
    assert [each["fix"].partition("--role=")[2] for each in found.findings] == [
        "roles/cloudtasks.enqueuer --condition=None",
        "roles/cloudtasks.taskDeleter --condition=None",
    ]


def test_image_that_was_deleted(project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each job whose image is not in Artifact Registry is found; the repository is created if it is missing."""
    monkeypatch.chdir(tmp_path)
    repository = f"v1/{project.place}/repositories/jobs"
    project.owner("artifactregistry", "DELETE", repository)
    found = project.doctor()

    assert [(each["id"], each["job"]) for each in found.findings] == [
        ("image_missing", "echo"),
        ("image_missing", "nightly"),
    ]
    build = f"gcloud builds submit . --tag={project.image(1)} --project={project.id}"
    create = f"gcloud artifacts repositories create jobs --repository-format=docker --location={REGION}"
    assert found.findings[0]["fix"] == f"{create} --project={project.id} && {build}"

    project.emulator.images.push(project.image(1))

    assert project.doctor().findings == []


def test_image_that_only_one_job_lacks(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job gets the image of the others. Without another, an image is built; none has the lost digest."""
    app = f"{REGION}-docker.pkg.dev/{project.id}/old/app"
    project.emulator.images.push(f"{app}@sha256:{'0' * 64}")
    project.manage("sync_cloudrun_jobs", "--image", f"{app}@sha256:{'0' * 64}", "--command", "echo")
    project.owner("artifactregistry", "DELETE", f"v1/{project.place}/repositories/old")
    project.emulator.images.push(f"{app}:other")
    sync = "manage.py sync_cloudrun_jobs --image"

    assert project.doctor().summary == [("image_missing", "echo", f"{sync} {project.image(1)} --command echo")]

    (tmp_path / "DockerfileServer").touch()
    monkeypatch.chdir(tmp_path)
    project.owner("artifactregistry", "DELETE", f"v1/{project.place}/repositories/jobs")

    build = f"docker build --file=DockerfileServer --tag={app} . && docker push {app}"
    assert project.doctor(commands=["echo"]).summary == [
        ("image_missing", "echo", f"{build} && {sync} {app} --command echo")
    ]


def test_other_registries_are_not_checked(project: Project) -> None:
    """That is said, for it is no finding."""
    project.manage("sync_cloudrun_jobs", "--image", "registry.example.com/app", "--command", *project.commands)
    found = project.doctor()

    assert (found.findings, found.status) == ([], 0)
    assert "Not checked: the image registry.example.com/app is not in Artifact Registry." in found.messages


def test_command_that_cannot_be_imported(project: Project, settings: Settings) -> None:
    """It is found, with the exception; its job is not an orphan, for what it declares is unknown."""
    job = project.job()
    label = OwnershipLabel(environment="production", command="broken")
    deployed = run_v2.Job(template=job.template, annotations={OWNERSHIP_ANNOTATION: str(label)})
    project.create_job(deployed, "broken-production")
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "tests.invalid_commands"]
    call_command.__globals__["get_commands"].cache_clear()
    found = project.doctor(commands=[*project.commands, "broken"])

    assert [(each["id"], each["job"], each["fix"]) for each in found.findings] == [
        ("command_unreadable", "broken", "manage.py broken --help")
    ]


def test_resources_of_a_command_that_cannot_be_imported(project: Project, settings: Settings) -> None:
    """What such a command declares is unknown: its job is no orphan, which --prune would delete."""
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "tests.invalid_commands"]
    call_command.__globals__["get_commands"].cache_clear()
    job = project.job()
    job.annotations = {name: text.replace("echo", "broken") for name, text in job.annotations.items()}
    job.name = ""
    project.create_job(job, "broken-production")

    assert project.doctor(commands=[*project.commands, "broken"]).ids == ["command_unreadable"]


@pytest.mark.parametrize(("seconds", "direction"), [(-60, "behind"), (60, "ahead of")])
def test_clock_that_differs(
    project: Project, monkeypatch: pytest.MonkeyPatch, seconds: int, direction: str
) -> None:
    """A lock server whose clock is a minute off is found."""
    read = DatabaseLocks.server_time
    monkeypatch.setattr(DatabaseLocks, "server_time", lambda locks: read(locks) + timedelta(seconds=seconds))
    found = project.doctor()

    assert found.ids == ["clock_differs"]
    assert f"60 seconds {direction} this machine's" in found.findings[0]["message"]


def test_clock_of_this_machine_that_differs(project: Project) -> None:
    """A machine whose clock is a minute ahead is found as well."""
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=1)):
        found = project.doctor()

    assert "60 seconds behind this machine's" in found.findings[0]["message"]


def test_lock_server_that_does_not_answer(project: Project) -> None:
    """It is one finding: what it would say is not checked."""
    project.set(
        LOCKS={"BACKEND": "cloudrun_jobs.locks.redis.RedisLocks", "OPTIONS": {"url": "redis://127.0.0.1:1"}}
    )
    found = project.doctor()

    setting = "CLOUDRUN_JOBS['LOCKS']['OPTIONS']['url']"
    fix = f"In the settings: {setting} = a server that answers `redis-cli -h 127.0.0.1 -p 1 ping`"
    assert found.summary == [("lock_server_unreachable", None, fix)]


def test_lock_server_that_evicts(project: Project, redis_server: LockServer) -> None:
    """A Redis that may evict locks is found, and is healthy after the command."""
    url = redis_servers.url(redis_server)
    project.set(LOCKS={"BACKEND": "cloudrun_jobs.locks.redis.RedisLocks", "OPTIONS": {"url": url}})
    client = Redis.from_url(url)
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        found = project.doctor()
    finally:
        client.config_set("maxmemory-policy", "noeviction")

    server = f"-h 127.0.0.1 -p {redis_server.port}"
    assert found.summary == [("locks_evicted", None, f"redis-cli {server} config set maxmemory-policy noeviction")]
    assert project.doctor().findings == []


def test_database_that_does_not_answer(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one finding, and the services are checked all the same."""
    monkeypatch.setattr("cloudrun_jobs.runs.health._missing_migrations", _fail)
    found = project.doctor()

    assert found.summary == [("database_unreachable", None, "manage.py check --database default")]


def _fail() -> Any:
    raise OSError("The network is unreachable.")


def test_database_without_tables(project: Project) -> None:
    """The tables of locks and of records are missing: one finding, for one command creates both."""
    cursor = connection.cursor()
    cursor.execute("DELETE FROM django_migrations WHERE app = 'cloudrun_jobs'")
    cursor.execute("DROP TABLE cloudrun_jobs_locktask")
    cursor.execute("DROP TABLE cloudrun_jobs_lockslot")
    found = project.doctor()

    assert found.summary == [("migrations_missing", None, "manage.py migrate --database=default")]


def test_records_in_sqlite(project: Project) -> None:
    """On Google's own services, SQLite is found; an emulator's tasks share the file."""
    facts = Facts(cloudrun_backend(), [])
    assert list(runtime.records_private(facts, None)) == []

    facts.backend.endpoint = None

    assert [finding.id for finding in runtime.records_private(facts, None)] == ["records_private"]


def test_container_is_checked_by_an_execution(project: Project) -> None:
    """With --execute, a container that cannot run this code is found, with its execution and the log's command."""
    project.declare(entrypoint=("/bin/sh", "-c", "exit 3"))
    project.declare(nightly, entrypoint=CHECKED)
    project.manage("sync_cloudrun_jobs", "--command", *project.commands)
    found = project.doctor("--execute")

    assert [(each["id"], each["job"]) for each in found.findings] == [("execution_failed", "echo")]
    assert project.doctor("--execute", "--skip", "execution_failed").findings == []
    execution = found.findings[0]["message"].partition("execution ")[2].partition(":")[0]
    assert execution.startswith("echo-production-")
    assert found.findings[0]["fix"] == (
        'gcloud logging read \'resource.type="cloud_run_job" AND'
        f' labels."run.googleapis.com/execution_name"="{execution}"\' --project={project.id}'
    )


def test_container_that_ignores_its_arguments(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that succeeds without the check is found; one that is known to be broken is not started."""
    monkeypatch.setattr(execution, "LOG_DELAY_SECONDS", 0.2)
    project.declare(entrypoint=("/bin/true",))
    project.manage("sync_cloudrun_jobs", "--image", "example.com/app", "--command", *project.commands)
    old = f"{REGION}-docker.pkg.dev/{project.id}/old/app"
    project.emulator.images.push(old)
    project.manage("sync_cloudrun_jobs", "--image", old, "--command", "nightly")
    project.owner("artifactregistry", "DELETE", f"v1/{project.place}/repositories/old")
    found = project.doctor("--execute")

    assert [(each["id"], each["job"]) for each in found.findings] == [
        ("image_missing", "nightly"),
        ("execution_failed", "echo"),
    ]
    assert "its entrypoint does not start the arguments" in found.findings[1]["message"]


@pytest.mark.parametrize(("at_once", "started"), [(1, 1), (2, 2)])
def test_check_takes_as_few_tasks_as_possible(project: Project, at_once: int, started: int) -> None:
    """Of a job with three tasks, no more are started than Cloud Run requires."""
    project.declare(entrypoint=CHECKED, tasks=3, task_parallelism=at_once)
    project.manage("sync_cloudrun_jobs", "--command", "echo")
    found = project.doctor("--execute", commands=["echo"])

    listed = project.owner("run", "GET", f"v2/{project.place}/jobs/echo-production/executions")
    (execution,) = listed["executions"]
    assert (found.findings, execution["taskCount"]) == ([], started)


def test_nothing_is_executed_otherwise(project: Project) -> None:
    """Without --execute, no call changes anything."""
    project.emulator.calls.clear()
    project.doctor()

    verbs = {call.partition(".")[2] for call in project.emulator.calls}
    assert all(verb.startswith(("Get", "List", "BatchGet", "Test")) for verb in verbs)


def test_number_of_calls_does_not_grow_with_the_jobs(project: Project) -> None:
    """One more job costs no call, if its roles are granted on the project."""
    project.manage("sync_cloudrun_jobs", "--image", project.image(1), "--command", "walk")
    project.emulator.calls.clear()
    project.doctor()
    before = sum(project.emulator.calls.values())
    project.emulator.calls.clear()
    project.doctor(commands=[*project.commands, "walk"])

    assert sum(project.emulator.calls.values()) == before <= 14


def test_job_that_was_created_with_default_retries(project: Project) -> None:
    """An adopted job keeps Cloud Run's retries: the class must declare others."""
    job = project.job()
    job.template.template.max_retries = 3
    project.update_job(job)
    project.declare(job_name="echo-production")
    found = project.doctor()

    assert found.summary == [
        (
            "retries_default",
            "echo",
            f"In the class of echo: max_retries = 0, or 3 to keep them, then {SYNC_ECHO}",
        )
    ]


def test_entrypoint_of_an_adopted_job(project: Project) -> None:
    """An adopted job that starts Python alone needs `manage.py` as its first argument."""
    job = project.job()
    job.template.template.containers[0].command = ["python"]
    project.update_job(job)
    project.declare(job_name="echo-production")

    assert project.doctor().summary == [
        ("entrypoint_differs", "echo", "In the class of echo: entrypoint = ['python']")
    ]


def test_service_behind_another_url(project: Project) -> None:
    """A service is found if it names the URL as an audience, and is named as not checked otherwise."""
    project.add_service()
    project.move_service("https://web.example.com")
    unknown = project.doctor()
    service = project.service()
    service.custom_audiences = ["https://web.example.com"]
    service.template.scaling.min_instance_count = 0
    project.services.update_service(service=service)

    assert (unknown.findings, unknown.status) == ([], 0)
    assert "Not checked: the service at https://web.example.com." in unknown.messages
    assert project.doctor().ids == ["service_cold"]


def test_image_of_the_jobs_that_are_not_selected(project: Project) -> None:
    """A job is compared with all jobs of the environment."""
    project.manage("sync_cloudrun_jobs", "--image", project.image(1), "--command", "walk")
    project.manage("sync_cloudrun_jobs", "--image", project.image(2), "--command", "echo")

    assert project.doctor(commands=["echo"]).ids == ["image_differs"]


def test_image_of_a_class(project: Project) -> None:
    """A job whose class names its image has another one by intention."""
    project.declare(image=project.image(2))
    project.manage("sync_cloudrun_jobs", "--command", "echo")

    assert project.doctor().findings == []


def test_several_schedules(project: Project) -> None:
    """Each schedule of a list is checked by its own name."""
    project.declare(nightly, schedule=["0 3 * * *", Schedule("0 4 * * *", name="late")])
    found = project.doctor()

    missing = f"Not in Cloud Scheduler, {REGION}: nightly-production-1, nightly-production-late."
    assert [(each["id"], each["message"]) for each in found.findings[:1]] == [("schedule_missing", missing)]
    assert found.ids == ["schedule_missing", "schedule_orphaned"]


def test_secrets_of_arguments(project: Project) -> None:
    """A secret that the arguments of a schedule or a job refer to is checked like one of a variable."""
    project.add_secret("note")
    project.allow_secret("note", project.account("scheduler"))
    project.declare(secret_options=("note",), args={"note": SecretRef("note:3")})
    project.manage("sync_cloudrun_jobs", "--command", "echo")
    found = project.doctor()

    assert [(each["id"], each["fix"].split(" --")[0]) for each in found.findings] == [
        ("secret_version", "Name a version that `gcloud secrets versions list note"),
        ("secret_access", "gcloud secrets add-iam-policy-binding note"),
    ]


def test_secrets_of_the_deployed_job(project: Project) -> None:
    """Secrets that the code does not declare, such as those of --from-service, are checked as well."""
    job = project.job()
    selector = {"secret": "db-password", "version": "latest"}
    variable = run_v2.EnvVar(name="PASSWORD", value_source={"secret_key_ref": selector})
    job.template.template.containers[0].env.append(variable)
    item = {"path": "key", "version": "2"}
    files = run_v2.Volume(name="keys", secret={"secret": f"projects/{project.id}/secrets/keys", "items": [item]})
    job.template.template.volumes.append(files)
    project.update_job(job)
    found = project.doctor()

    assert [(each["id"], each["fix"].split(" --")[0]) for each in found.findings] == [
        ("secret_missing", "gcloud secrets create db-password"),
        ("secret_missing", "gcloud secrets create keys"),
    ]


def test_custom_role(project: Project) -> None:
    """A role that the project defines is read; one that cannot be read grants nothing."""
    project.revoke(project.account("scheduler"), "roles/run.jobsExecutorWithOverrides")
    project.allow(project.account("scheduler"), f"projects/{project.id}/roles/starter")

    assert project.doctor().ids == ["scheduler_role"]


def test_paused_schedule_is_a_message(project: Project) -> None:
    """A pause is deliberate: it is no finding, nor are the ticks that it skips."""
    project.emulator.scheduler.entries[
        f"{project.place}/jobs/nightly-production"
    ].job.state = scheduler_v1.Job.State.PAUSED
    next(fault for fault in GCLOUD if fault.id == "schedule_overdue").plant(project)
    found = project.doctor()

    assert (found.findings, found.status) == ([], 0)
    assert (
        "nightly-production was paused by hand. `manage.py cloudrun_jobs resume nightly` resumes it."
        in found.messages
    )


def test_disabled_api_leaves_the_rest_unchecked(project: Project) -> None:
    """Without Cloud Scheduler's API there is one finding; its checks are named as not made."""
    api = f"v1/projects/{project.id}/services/cloudscheduler.googleapis.com"
    project.owner("serviceusage", "POST", f"{api}:disable", body={})
    found = project.doctor()

    assert found.ids == ["api_disabled"]
    assert "Enable it with `gcloud services enable cloudscheduler.googleapis.com`." in found.messages
    assert "Not checked: region_unsupported" in found.messages
    assert "schedule_missing" in found.messages


def test_policies_that_cannot_be_read(project: Project) -> None:
    """Without the permission for a check, the check is named, with the permission."""
    project.revoke(CALLER, "roles/iam.securityReviewer")
    found = project.doctor()

    assert (found.findings, found.status) == ([], 2)
    assert "Not checked: scheduler_role, scheduler_agent." in found.messages
    assert "resourcemanager.projects.getIamPolicy" in found.messages
    assert "No faults found in 2 jobs, but 2 checks could not be made." in project.doctor(as_json=False).messages


def test_skipped_findings(project: Project) -> None:
    """--skip leaves out findings by their ids, and rejects an unknown id."""
    project.delete_job()
    project.delete_schedule()

    assert project.doctor("--skip", "job_missing").ids == ["schedule_missing"]
    healthy = project.doctor("--skip", "job_missing", "schedule_missing")
    assert (healthy.output, healthy.messages, healthy.status) == ("[]\n", "", 0)
    unknown = project.doctor("--skip", "job_mising")
    assert (unknown.status, unknown.messages.count("Did you mean 'job_missing'?")) == (2, 1)


def test_consequence_is_left_out(project: Project) -> None:
    """A failed attempt of a schedule is not reported beside its cause."""
    for fault in GCLOUD:
        if fault.name == "scheduler_role_without_overrides" or fault.id == "schedule_failing":
            fault.plant(project)

    assert project.doctor().ids == ["scheduler_role"]


def test_output_on_a_terminal(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Findings are grouped by job; messages are wrapped, fixes are not; the last line says what comes next."""
    monkeypatch.setenv("COLUMNS", "80")
    project.delete_job()
    project.delete_schedule()
    found = project.doctor(as_json=False)

    assert found.output.splitlines() == [
        "echo",
        "  job_missing",
        f"    The Cloud Run Job echo-production does not exist in {project.id},",
        f"    {REGION}.",
        f"    manage.py sync_cloudrun_jobs --image {project.image(1)} --command echo",
        "",
        "nightly",
        "  schedule_missing",
        f"    Not in Cloud Scheduler, {REGION}: nightly-production.",
        "    manage.py sync_cloudrun_schedules --command nightly",
    ]
    assert found.messages.splitlines() == [
        f"Checking {project.id}, {REGION}, as {CALLER}.",
        "2 findings. Run the commands above, then `manage.py cloudrun_jobs doctor` again.",
    ]


def test_healthy_output(project: Project) -> None:
    """Without findings, stdout is empty, and the last line names the next command."""
    found = project.doctor(as_json=False)

    assert (found.output, found.status) == ("", 0)
    assert found.messages.splitlines()[-1] == (
        "No faults found in 2 jobs. `manage.py cloudrun_jobs list` lists the jobs."
    )


def test_all_jobs(project: Project) -> None:
    """Without --command, all jobs are checked, that of RECONCILE included, and what is left of others."""
    project.manage("sync_cloudrun_jobs", "--image", project.image(1))
    project.manage("sync_cloudrun_schedules")
    healthy = project.doctor(commands=[])
    job = project.job()
    job.annotations = {name: text.replace("echo", "gone") for name, text in job.annotations.items()}
    job.name = ""
    project.create_job(job, "gone-production")

    assert [finding for finding in healthy.findings if finding["id"] not in SECRETS] == []
    assert ("job_orphaned", "gone", "manage.py sync_cloudrun_jobs --prune") in project.doctor(commands=[]).summary


def test_unknown_job(project: Project) -> None:
    """A misspelt name exits with status 1, and a suggestion."""
    found = project.doctor(commands=["ecko"])

    assert (found.output, found.status) == ("", 1)
    assert "Did you mean 'echo'?" in found.messages


@pytest.mark.parametrize("token", ["", "ya29.wrong"])
def test_caller_without_valid_credentials(project: Project, token: str) -> None:
    """Nothing can be checked: one line, and exit status 2."""
    project.options["access_token"] = token or None
    project.apply()
    found = project.doctor()

    assert (found.output, found.status, found.messages.count("\n")) == ("", 2, 0)
    assert "no valid credentials" in found.messages


def test_server_that_does_not_answer(project: Project) -> None:
    """Without a connection nothing can be checked: one line, and exit status 2."""
    project.options["endpoint"] = "127.0.0.1:1"
    project.apply()
    found = project.doctor()

    assert (found.output, found.status, found.messages.count("\n")) == ("", 2, 0)
    assert "No server listens at 127.0.0.1:1." in found.messages


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ENVIRONMENT": "local"}, "'local' has no jobs and no schedules in the cloud"),
        (
            {"ENVIRONMENT": "production", "BACKEND": "cloudrun_jobs.backends.celery.CeleryBackend"},
            "'production' runs no jobs on Cloud Run",
        ),
    ],
)
def test_environment_without_cloud_run(settings: Settings, values: dict[str, Any], message: str) -> None:
    """In the environment "local", and if Celery runs all jobs, there is nothing to ask: exit status 2."""
    settings.CLOUDRUN_JOBS = values
    with pytest.raises(CommandError, match=message) as raised:
        call_command("cloudrun_jobs", "doctor", stdout=StringIO(), stderr=StringIO())

    assert raised.value.returncode == 2


def test_invalid_token_has_an_error_of_its_own(project: Project) -> None:
    """OAuth's errors, which have another form than those of other services, are understood."""
    client = RestClient(Server(project.emulator.grpc, "ya29.wrong"), timeout=5.0)

    with pytest.raises(Exception, match="Invalid Value"):
        client.account()


@pytest.mark.parametrize("permission", ROLES)
def test_roles_are_those_that_google_publishes(permission: str) -> None:
    """Which roles grant a permission agrees with the list that the emulator has."""
    known = published_roles()

    assert {role for role in known if permission in known[role] and grants(role, permission)} == {
        role for role in ROLES[permission] if role in known
    }


def test_regions_have_a_nearest_one() -> None:
    """Each region of Cloud Run has a place, and a near region with Cloud Scheduler."""
    assert set(RUN_REGIONS) <= set(PLACES)
    assert nearest("africa-south1", SCHEDULER_REGIONS) in SCHEDULER_REGIONS
    assert nearest("us-east5", SCHEDULER_REGIONS) == "us-east4"
    assert nearest("australia-southeast2", SCHEDULER_REGIONS) == "australia-southeast1"
    assert nearest("mars-north1", ["europe-west1", "mars-south1"]) == "mars-south1"
    assert nearest("europe-north1", []) == ""


def test_ids_are_unique() -> None:
    """An id belongs to one check, or to two that find it in different ways."""
    assert len(IDS) == len(set(IDS))
    assert {id_ for check in CHECKS for id_ in check.ids} < set(IDS)


def test_emulator_without_policy(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """On an emulator that checks no caller, a project needs only its jobs."""
    with Emulator(grace=1.0) as emulator:
        project = Project(emulator, "acme", settings, monkeypatch)
        del project.options["access_token"]
        project.apply()
        project.manage("sync_cloudrun_jobs", "--image", project.image(1), "--command", *project.commands)
        project.manage("sync_cloudrun_schedules", "--command", *project.commands)
        found = project.doctor(as_json=False)

    assert (found.output, found.status) == ("", 0)
    assert "as an account that cannot be determined." in found.messages
