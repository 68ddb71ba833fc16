"""`sync_cloudrun_jobs` against the emulator, by Google's own client."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import get_commands
from google.cloud import run_v2
from google.protobuf.duration_pb2 import Duration
from pytest_django import Settings

from cloudrun_jobs import backends
from cloudrun_jobs.backends.cloudrun import CloudRunBackend
from cloudrun_jobs.deploy import jobs as job_declarations
from cloudrun_jobs.deploy.cloudrun.jobs import Jobs
from cloudrun_jobs.deploy.plan import apply, plan
from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.exceptions import ServiceError
from cloudrun_jobs.spec.ownership import OwnershipLabel
from tests.deploy.commands import PLACE, Sync
from tests.jobs.management.commands import echo
from tests.waiting import wait_for

ECHO = f"{PLACE}/jobs/echo-production"
ANNOTATION = "cloudrun-jobs/managed"
SETTINGS_VARIABLES = {
    "CLOUDRUN_JOBS_ENVIRONMENT": "production",
    "CLOUDRUN_JOBS_PROJECT": "acme",
    "CLOUDRUN_JOBS_REGION": "europe-west4",
}
ALL: tuple[str, ...] = ()
THREE = ("--command", "echo", "nightly", "outcome")


def job(emulator: Emulator, name: str = ECHO) -> run_v2.Job:
    return emulator.clients.jobs.get_job(name=name)


def container(emulator: Emulator) -> run_v2.Container:
    return job(emulator).template.template.containers[0]


def variables(emulator: Emulator) -> dict[str, Any]:
    def value(variable: run_v2.EnvVar) -> str:
        selector = variable.value_source.secret_key_ref
        return f"{selector.secret}:{selector.version}" if selector.secret else variable.value

    return {variable.name: value(variable) for variable in container(emulator).env}


def declare(monkeypatch: pytest.MonkeyPatch, **declared: Any) -> None:
    for name, value in declared.items():
        monkeypatch.setattr(echo.Command, name, value, raising=False)


def update(emulator: Emulator, edited: run_v2.Job) -> None:
    emulator.clients.jobs.update_job(job=edited)


def test_job_is_created(sync_jobs: Sync, emulator: Emulator) -> None:
    """Its container runs `manage.py` with the command's name and the settings' variables, without retries."""
    synced = sync_jobs("--image", "app:1")

    task, main = job(emulator).template.template, container(emulator)
    assert (synced.status, synced.lines[0]) == (0, "+ echo  app:1")
    assert synced.calls == {"Jobs.ListJobs": 1, "Jobs.CreateJob": 1}
    assert (main.image, list(main.command), list(main.args)) == ("app:1", ["python", "manage.py"], ["echo"])
    assert (task.max_retries, task.timeout) == (0, timedelta(minutes=10))
    assert variables(emulator) == SETTINGS_VARIABLES
    assert OwnershipLabel.read(job(emulator).annotations[ANNOTATION]) == OwnershipLabel(
        environment="production", command="echo"
    )


def test_second_sync_changes_nothing(sync_jobs: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every declared field is read as it was written: one call, no change."""
    declare(monkeypatch, **EVERYTHING)
    sync_jobs("--image", "app:1")

    again = sync_jobs("--image", "app:1")

    assert (again.lines, again.calls) == (["= 1 unchanged"], {"Jobs.ListJobs": 1})
    assert sync_jobs("--check").status == 0


EVERYTHING: dict[str, Any] = {
    "entrypoint": ["/app/run", "--quiet"],
    "args": {"partner": 7},
    "timeout": 60,
    "max_retries": 2,
    "tasks": 5,
    "task_parallelism": 3,
    "cpu": 0.5,
    "memory": "1024Mi",
    "service_account": "app-jobs@acme.iam.gserviceaccount.com",
    "env_vars": {"LANG": "ko_KR.UTF-8", "EMPTY": ""},
    "secrets": {"KEY": "partner-key", "OLD": "partner-key:3"},
    "vpc": {"network": "default", "subnetwork": "jobs", "tags": ["a", "b"], "egress": "all-traffic"},
    "cloud_sql": ["acme:europe-west4:main", "acme:europe-west4:logs"],
    "labels": {"team": "billing"},
}


def test_everything_declared_is_written(
    sync_jobs: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attribute is written to its field."""
    declare(monkeypatch, **EVERYTHING)

    sync_jobs("--image", "app:1")

    written, main = job(emulator), container(emulator)
    execution, task = written.template, written.template.template
    assert (list(main.command), list(main.args)) == (["/app/run", "--quiet"], ["echo", "--partner=7"])
    assert (task.timeout.total_seconds(), task.max_retries) == (60, 2)
    assert (execution.task_count, execution.parallelism) == (5, 3)
    assert dict(main.resources.limits) == {"cpu": "500m", "memory": "1Gi"}
    assert task.service_account == "app-jobs@acme.iam.gserviceaccount.com"
    own = {"LANG": "ko_KR.UTF-8", "EMPTY": "", "KEY": "partner-key:latest", "OLD": "partner-key:3"}
    assert variables(emulator) == SETTINGS_VARIABLES | own
    interface = task.vpc_access.network_interfaces[0]
    assert (interface.network, interface.subnetwork, list(interface.tags)) == ("default", "jobs", ["a", "b"])
    assert task.vpc_access.egress.name == "ALL_TRAFFIC"
    assert list(task.volumes[0].cloud_sql_instance.instances) == sorted(EVERYTHING["cloud_sql"])
    assert [(mount.name, mount.mount_path) for mount in main.volume_mounts] == [("cloudsql", "/cloudsql")]
    assert dict(written.labels) == {"team": "billing"}


def test_short_name_of_a_connector(sync_jobs: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cloud Run requires a full name, which contains the project; the class needs none."""
    declare(monkeypatch, vpc={"connector": "main"})

    sync_jobs("--image", "app:1")

    access = job(emulator).template.template.vpc_access
    assert access.connector == f"{PLACE}/connectors/main"
    assert sync_jobs("--check").status == 0


def test_fields_no_longer_declared_are_removed(sync_jobs: Sync, emulator: Emulator) -> None:
    """Only variables, labels, networks and limits that the code declared are removed."""
    with pytest.MonkeyPatch.context() as declared:
        declare(declared, **EVERYTHING)
        sync_jobs("--image", "app:1")
    edited = job(emulator)
    edited.template.template.containers[0].env.append(run_v2.EnvVar(name="OTHER", value="1"))
    edited.labels["cost"] = "high"
    update(emulator, edited)

    sync_jobs("--image", "app:1")

    after, main = job(emulator), container(emulator)
    assert variables(emulator) == {**SETTINGS_VARIABLES, "OTHER": "1"}
    assert dict(after.labels) == {"cost": "high"}
    assert dict(main.resources.limits) == {"cpu": "1000m", "memory": "512Mi"}
    assert "vpc_access" not in after.template.template
    assert (list(after.template.template.volumes), list(main.volume_mounts)) == ([], [])
    assert (after.template.parallelism, after.template.template.service_account) == (0, "")
    assert sync_jobs("--check").status == 0


def test_undeclared_fields_stay(sync_jobs: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields that the class does not declare are no drift, and stay after an update."""
    sync_jobs("--image", "app:1")
    edited = job(emulator)
    task, main = edited.template.template, edited.template.template.containers[0]
    main.resources.limits = {"cpu": "2", "memory": "4Gi"}
    main.resources.startup_cpu_boost = True
    main.env.append(run_v2.EnvVar(name="OTHER", value="1"))
    task.service_account = "other@acme.iam.gserviceaccount.com"
    task.execution_environment = run_v2.ExecutionEnvironment.EXECUTION_ENVIRONMENT_GEN2
    task.volumes = [run_v2.Volume(name="scratch", empty_dir=run_v2.EmptyDirVolumeSource(size_limit="1Gi"))]
    edited.annotations["example.com/owner"] = "me"
    task.containers.append(run_v2.Container(name="proxy", image="proxy:1"))
    update(emulator, edited)
    before = job(emulator)
    assert sync_jobs("--check").status == 0
    declare(monkeypatch, timeout=90)

    sync_jobs("--image", "app:1")

    after = job(emulator)
    before.template.template.timeout = Duration(seconds=90)
    assert after.template == before.template
    assert after.annotations == before.annotations


@pytest.mark.parametrize("field", ["image", "args", "command"])
def test_manual_changes_are_reverted(sync_jobs: Sync, emulator: Emulator, field: str) -> None:
    """A declared field that differs is drift, which one update ends."""
    sync_jobs("--image", "app:1")
    edited = job(emulator)
    setattr(edited.template.template.containers[0], field, "other" if field == "image" else ["other"])
    update(emulator, edited)

    assert sync_jobs("--image", "app:1", "--check").status == 1
    assert sync_jobs("--image", "app:1").calls == {"Jobs.ListJobs": 1, "Jobs.UpdateJob": 1}
    assert sync_jobs("--image", "app:1", "--check").status == 0


def test_new_image_is_one_update_per_job(sync_jobs: Sync, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that names an image keeps it."""
    sync_jobs("--image", "app:1", commands=THREE)
    declare(monkeypatch, image="special:1")

    synced = sync_jobs("--image", "app:2", commands=THREE)

    assert synced.calls == {"Jobs.ListJobs": 1, "Jobs.UpdateJob": 3}
    assert "~ echo     image: app:1 → special:1" in synced.lines
    assert "~ nightly  image: app:1 → app:2" in synced.lines


def test_default_image(sync_jobs: Sync, emulator: Emulator, settings: Settings) -> None:
    """The image of DEFAULTS is used if there is no --image."""
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "DEFAULTS": {"image": "app:default"}}

    sync_jobs()
    assert container(emulator).image == "app:default"

    sync_jobs("--image", "app:2")
    assert container(emulator).image == "app:2"


def test_new_job_needs_an_image(sync_jobs: Sync, emulator: Emulator) -> None:
    """Without an image no job is created; an existing job keeps its image."""
    refused = sync_jobs()
    assert (refused.status, refused.messages) == (2, "echo: a new job needs an image. Add --image IMAGE.")

    sync_jobs("--image", "app:1")
    assert (sync_jobs().status, container(emulator).image) == (0, "app:1")


def test_orphan_is_deleted_with_prune(sync_jobs: Sync, emulator: Emulator, settings: Settings) -> None:
    """Only an owned job without a command is an orphan."""
    sync_jobs("--image", "app:1", commands=ALL)
    foreign = run_v2.Job(job(emulator))
    foreign.name, foreign.annotations = "", {}
    emulator.clients.jobs.create_job(parent=PLACE, job=foreign, job_id="foreign")
    foreign.annotations = {ANNOTATION: str(OwnershipLabel(environment="staging", command="x"))}
    emulator.clients.jobs.create_job(parent=PLACE, job=foreign, job_id="x-staging")
    foreign.annotations = {ANNOTATION: str(OwnershipLabel(environment="production", command="gone"))}
    emulator.clients.jobs.create_job(parent=PLACE, job=foreign, job_id="gone-production")

    checked = sync_jobs("--image", "app:1", "--check", commands=ALL)
    pruned = sync_jobs("--image", "app:1", "--prune", commands=ALL)

    left = {found.name.rpartition("/")[2] for found in emulator.clients.jobs.list_jobs(parent=PLACE)}
    assert checked.status == 1
    assert "- gone-production  (no command declares it; deleted)" in pruned.lines
    assert {"foreign", "x-staging"} <= left
    assert "gone-production" not in left


def service(*containers: run_v2.Container, **template: Any) -> run_v2.Service:
    return run_v2.Service(template=run_v2.RevisionTemplate(containers=list(containers), **template))


WEB = run_v2.Container(
    image="web:1",
    command=["gunicorn"],
    env=[
        run_v2.EnvVar(name="DEBUG", value="0"),
        run_v2.EnvVar(name="LANG", value="C"),
        run_v2.EnvVar(
            name="KEY",
            value_source=run_v2.EnvVarSource(
                secret_key_ref=run_v2.SecretKeySelector(secret="key", version="latest")
            ),
        ),
    ],
    resources=run_v2.ResourceRequirements(limits={"cpu": "4"}, cpu_idle=True, startup_cpu_boost=True),
    ports=[run_v2.ContainerPort(container_port=8080)],
    volume_mounts=[
        run_v2.VolumeMount(name="sql", mount_path="/cloudsql"),
        run_v2.VolumeMount(name="certs", mount_path="/certs"),
    ],
)


def test_from_service_copies_shared_fields(
    sync_jobs: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables, secrets, their files, VPC and Cloud SQL are copied, and nothing else."""
    emulator.services[f"{PLACE}/services/web"] = service(
        WEB,
        vpc_access=run_v2.VpcAccess(
            egress=run_v2.VpcAccess.VpcEgress.ALL_TRAFFIC,
            network_interfaces=[run_v2.VpcAccess.NetworkInterface(network="n", subnetwork="s", tags=["t"])],
        ),
        volumes=[
            run_v2.Volume(name="sql", cloud_sql_instance=run_v2.CloudSqlInstance(instances=["a:b:c"])),
            run_v2.Volume(name="certs", secret=run_v2.SecretVolumeSource(secret="tls")),
        ],
    )
    declare(monkeypatch, env_vars={"LANG": "ko_KR.UTF-8"})

    synced = sync_jobs("--image", "app:1", "--from-service", "web")

    task, main = job(emulator).template.template, container(emulator)
    assert synced.calls == {"Services.GetService": 1, "Jobs.ListJobs": 1, "Jobs.CreateJob": 1}
    assert variables(emulator) == {**SETTINGS_VARIABLES, "DEBUG": "0", "LANG": "ko_KR.UTF-8", "KEY": "key:latest"}
    assert (task.vpc_access.egress.name, task.vpc_access.network_interfaces[0].subnetwork) == ("ALL_TRAFFIC", "s")
    assert {mount.mount_path for mount in main.volume_mounts} == {"/cloudsql", "/certs"}
    assert {tuple(volume.cloud_sql_instance.instances) for volume in task.volumes} == {("a:b:c",), ()}
    assert {volume.secret.secret for volume in task.volumes} == {"tls", ""}
    assert (main.image, list(main.ports), main.resources.cpu_idle) == ("app:1", [], False)
    assert dict(main.resources.limits) == {"cpu": "1000m", "memory": "512Mi"}
    again = sync_jobs("--image", "app:1", "--from-service", "web")
    assert again.lines == ["= 1 unchanged"]
    assert sync_jobs("--image", "app:1").lines == ["= 1 unchanged"]


def test_from_service_copies_changed_variables(sync_jobs: Sync, emulator: Emulator) -> None:
    """The next sync writes the new value, and shows neither value."""
    emulator.services[f"{PLACE}/services/web"] = service(
        run_v2.Container(image="web", env=[run_v2.EnvVar(name="DSN", value="hunter1")])
    )
    first = sync_jobs("--image", "app:1", "--from-service", "web")
    emulator.services[f"{PLACE}/services/web"].template.containers[0].env[0].value = "hunter2"

    second = sync_jobs("--image", "app:1", "--from-service", "web")

    assert variables(emulator)["DSN"] == "hunter2"
    assert second.lines[0] == "~ echo  env_vars.DSN: another value"
    assert "hunter" not in f"{first} {second}"


def test_service_with_sidecars_is_rejected(sync_jobs: Sync, emulator: Emulator) -> None:
    """A service with two containers cannot be copied."""
    emulator.services[f"{PLACE}/services/web"] = service(WEB, run_v2.Container(image="proxy"))

    synced = sync_jobs("--image", "app:1", "--from-service", "web")

    assert synced.status == 2
    assert "The service 'web' has 2 containers; sidecars cannot be copied." in synced.messages
    assert synced.calls == {"Services.GetService": 1}


def test_job_that_is_not_ready_is_reported(sync_jobs: Sync, emulator: Emulator) -> None:
    """The next sync reports what Cloud Run found later, such as a missing image."""
    sync_jobs("--image", "app:1")
    condition = run_v2.Condition(
        type_="Ready", state=run_v2.Condition.State.CONDITION_FAILED, message="Image 'app:1' not found."
    )
    emulator._engine.store.jobs[ECHO].terminal_condition = condition

    assert "! echo: not ready: Image 'app:1' not found." in sync_jobs("--image", "app:1").messages


def test_unknown_service_is_reported(sync_jobs: Sync) -> None:
    """The error names the service."""
    synced = sync_jobs("--image", "app:1", "--from-service", "wep")

    assert synced.status == 2
    assert f"{PLACE}/services/wep: rejected." in synced.messages


@pytest.mark.parametrize(
    ("method", "permission"),
    [
        ("Jobs.ListJobs", "run.jobs.list (roles/run.viewer) on it"),
        (
            "Jobs.CreateJob",
            "run.jobs.create (roles/run.developer) on it, and roles/iam.serviceAccountUser on the job's",
        ),
    ],
)
def test_missing_permission_is_named(sync_jobs: Sync, emulator: Emulator, method: str, permission: str) -> None:
    """The error names the missing permission and a role that has it."""
    emulator.faults.fail(method, "PERMISSION_DENIED", "No.")

    synced = sync_jobs("--image", "app:1")

    assert synced.status == 2
    assert f"permission denied. No. Grant {permission}" in synced.messages


@pytest.mark.parametrize(
    ("code", "messages"), [("NOT_FOUND", "It was deleted since"), ("ABORTED", "It was changed since")]
)
def test_concurrent_change_is_reported(sync_jobs: Sync, emulator: Emulator, code: str, messages: str) -> None:
    """A change between the list and the write is an error; a second sync succeeds."""
    sync_jobs("--image", "app:1")
    emulator.faults.fail("Jobs.UpdateJob", code, "Conflict.")

    synced = sync_jobs("--image", "app:2")

    assert synced.status == 2
    assert messages in synced.messages
    assert sync_jobs("--image", "app:2").status == 0


def test_reverted_concurrent_change_is_reported(sync_jobs: Sync, emulator: Emulator) -> None:
    """An update writes the whole job; without an etag, the generation shows a change since it was listed."""
    sync_jobs("--image", "app:1")
    backend, reports = backends.current(), list[tuple[str, ServiceError | None]]()
    assert isinstance(backend, CloudRunBackend)
    store = Jobs(backend)
    desired = job_declarations.desired([echo.Command()], backend, image="app:2")
    [listed] = store.list()
    listed.message.etag = ""
    todo = plan(desired, [listed], environment="production")
    edited = job(emulator)
    edited.labels["cost"] = "high"
    update(emulator, edited)

    apply(todo.to_apply, store, lambda change, remark, error: reports.append((remark, error)))

    assert reports == [("this reverted a change that was made since the jobs were listed: check the job", None)]


def test_exhausted_quota_is_retried(sync_jobs: Sync, emulator: Emulator) -> None:
    """A write that failed for lack of quota is repeated."""
    emulator.faults.exhaust("Jobs.CreateJob")

    synced = sync_jobs("--image", "app:1")

    assert (synced.status, synced.calls["Jobs.CreateJob"]) == (0, 2)


def test_other_changes_are_applied_after_a_failure(sync_jobs: Sync, emulator: Emulator) -> None:
    """The exit status is 2, and a second sync retries the failed change."""
    emulator.faults.fail("Jobs.CreateJob", "INTERNAL", "Oops.")

    synced = sync_jobs("--image", "app:1", commands=THREE)

    assert synced.status == 2
    assert "1 of 3 changes failed." in synced.messages
    assert sync_jobs("--image", "app:1", commands=THREE).calls == {"Jobs.ListJobs": 1, "Jobs.CreateJob": 1}


def test_duplicate_names_are_rejected(sync_jobs: Sync, settings: Settings) -> None:
    """Two commands with one job name would overwrite each other."""
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "tests.invalid_commands"]
    get_commands.cache_clear()

    synced = sync_jobs("--image", "app:1", commands=("--command", "same_name", "same-name"))

    assert "same-name and same_name would both be 'same-name-production'" in synced.messages
    assert synced.status == 2


def test_schedule_starts_the_job(
    sync_jobs: Sync, sync_schedules: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the due time Cloud Scheduler runs the job, with the tick in a variable."""
    script = "import os, sys; print(sys.argv[1:], os.environ['CLOUDRUN_JOBS_SCHEDULE'])"
    declare(monkeypatch, entrypoint=[sys.executable, "-c", script], image="app:1", schedule="0 9 * * *")
    emulator.clock.freeze(datetime(2026, 11, 23, 8, 0, tzinfo=UTC))
    sync_jobs()
    sync_schedules("--command", "echo")

    emulator.clock.advance(timedelta(hours=24))

    lines = wait_for(lambda: [entry.text_payload for entry in emulator.logs.all() if "echo" in entry.text_payload])
    assert lines == ["['echo'] echo-production|0 9 * * *|Asia/Tokyo"]
