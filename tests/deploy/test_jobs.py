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
from cloudrun_jobs.spec.ownership import OwnershipLabel
from tests.deploy.commands import PLACE, Sync
from tests.jobs.management.commands import echo
from tests.waiting import wait_for

ECHO = f"{PLACE}/jobs/echo-production"
ANNOTATION = "cloudrun-jobs/managed"
TOLD = {
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


def update(emulator: Emulator, theirs: run_v2.Job) -> None:
    emulator.clients.jobs.update_job(job=theirs)


def test_a_job_is_made_as_declared(sync_jobs: Sync, emulator: Emulator) -> None:
    """Its container is `manage.py` with the command's name, and is told its environment; retries are off."""
    synced = sync_jobs("--image", "app:1")

    task, ours = job(emulator).template.template, container(emulator)
    assert (synced.status, synced.lines[0]) == (0, "+ echo  app:1")
    assert synced.calls == {"Jobs.ListJobs": 1, "Jobs.CreateJob": 1}
    assert (ours.image, list(ours.command), list(ours.args)) == ("app:1", ["python", "manage.py"], ["echo"])
    assert (task.max_retries, task.timeout) == (0, timedelta(minutes=10))
    assert variables(emulator) == TOLD
    assert OwnershipLabel.read(job(emulator).annotations[ANNOTATION]) == OwnershipLabel(
        environment="production", command="echo"
    )


def test_a_second_run_changes_nothing(
    sync_jobs: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is declared, what was written is what is found: one call, no change."""
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
    "service_account": "jobs@acme.iam.gserviceaccount.com",
    "env_vars": {"LANG": "ko_KR.UTF-8", "EMPTY": ""},
    "secrets": {"KEY": "partner-key", "OLD": "partner-key:3"},
    "vpc": {"network": "default", "subnetwork": "jobs", "tags": ["a", "b"], "egress": "all-traffic"},
    "cloud_sql": ["acme:europe-west4:main", "acme:europe-west4:logs"],
    "labels": {"team": "billing"},
}


def test_everything_declared_is_written(
    sync_jobs: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attribute arrives where Cloud Run has it."""
    declare(monkeypatch, **EVERYTHING)

    sync_jobs("--image", "app:1")

    written, ours = job(emulator), container(emulator)
    execution, task = written.template, written.template.template
    assert (list(ours.command), list(ours.args)) == (["/app/run", "--quiet"], ["echo", "--partner=7"])
    assert (task.timeout.total_seconds(), task.max_retries) == (60, 2)
    assert (execution.task_count, execution.parallelism) == (5, 3)
    assert dict(ours.resources.limits) == {"cpu": "500m", "memory": "1Gi"}
    assert task.service_account == "jobs@acme.iam.gserviceaccount.com"
    own = {"LANG": "ko_KR.UTF-8", "EMPTY": "", "KEY": "partner-key:latest", "OLD": "partner-key:3"}
    assert variables(emulator) == TOLD | own
    interface = task.vpc_access.network_interfaces[0]
    assert (interface.network, interface.subnetwork, list(interface.tags)) == ("default", "jobs", ["a", "b"])
    assert task.vpc_access.egress.name == "ALL_TRAFFIC"
    assert list(task.volumes[0].cloud_sql_instance.instances) == sorted(EVERYTHING["cloud_sql"])
    assert [(mount.name, mount.mount_path) for mount in ours.volume_mounts] == [("cloudsql", "/cloudsql")]
    assert dict(written.labels) == {"team": "billing"}


def test_a_connector_may_be_named_shortly(
    sync_jobs: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cloud Run wants the full name of a VPC connector, a class that serves every environment has none."""
    declare(monkeypatch, vpc={"connector": "main"})

    sync_jobs("--image", "app:1")

    access = job(emulator).template.template.vpc_access
    assert access.connector == f"{PLACE}/connectors/main"
    assert sync_jobs("--check").status == 0


def test_what_is_no_longer_declared_goes(sync_jobs: Sync, emulator: Emulator) -> None:
    """Variables, labels, networks and amounts that the code gave the job are taken back, and only they."""
    with pytest.MonkeyPatch.context() as declared:
        declare(declared, **EVERYTHING)
        sync_jobs("--image", "app:1")
    theirs = job(emulator)
    theirs.template.template.containers[0].env.append(run_v2.EnvVar(name="THEIRS", value="1"))
    theirs.labels["cost"] = "high"
    update(emulator, theirs)

    sync_jobs("--image", "app:1")

    after, ours = job(emulator), container(emulator)
    assert variables(emulator) == {**TOLD, "THEIRS": "1"}
    assert dict(after.labels) == {"cost": "high"}
    assert dict(ours.resources.limits) == {"cpu": "1000m", "memory": "512Mi"}
    assert "vpc_access" not in after.template.template
    assert (list(after.template.template.volumes), list(ours.volume_mounts)) == ([], [])
    assert (after.template.parallelism, after.template.template.service_account) == (0, "")
    assert sync_jobs("--check").status == 0


def test_what_somebody_else_set_stays(
    sync_jobs: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the class does not declare, Terraform or a person may: it is no drift, and survives an update."""
    sync_jobs("--image", "app:1")
    theirs = job(emulator)
    task, ours = theirs.template.template, theirs.template.template.containers[0]
    ours.resources.limits = {"cpu": "2", "memory": "4Gi"}
    ours.resources.startup_cpu_boost = True
    ours.env.append(run_v2.EnvVar(name="THEIRS", value="1"))
    task.service_account = "theirs@acme.iam.gserviceaccount.com"
    task.execution_environment = run_v2.ExecutionEnvironment.EXECUTION_ENVIRONMENT_GEN2
    task.volumes = [run_v2.Volume(name="scratch", empty_dir=run_v2.EmptyDirVolumeSource(size_limit="1Gi"))]
    theirs.annotations["example.com/owner"] = "me"
    task.containers.append(run_v2.Container(name="proxy", image="proxy:1"))
    update(emulator, theirs)
    before = job(emulator)
    assert sync_jobs("--check").status == 0
    declare(monkeypatch, timeout=90)

    sync_jobs("--image", "app:1")

    after = job(emulator)
    before.template.template.timeout = Duration(seconds=90)
    assert after.template == before.template
    assert after.annotations == before.annotations


@pytest.mark.parametrize("field", ["image", "args", "command"])
def test_what_somebody_changed_by_hand_is_put_right(sync_jobs: Sync, emulator: Emulator, field: str) -> None:
    """A declared field that differs is drift, and one update ends it."""
    sync_jobs("--image", "app:1")
    theirs = job(emulator)
    setattr(theirs.template.template.containers[0], field, "other" if field == "image" else ["other"])
    update(emulator, theirs)

    assert sync_jobs("--image", "app:1", "--check").status == 1
    assert sync_jobs("--image", "app:1").calls == {"Jobs.ListJobs": 1, "Jobs.UpdateJob": 1}
    assert sync_jobs("--image", "app:1", "--check").status == 0


def test_one_image_for_all_in_one_pass(sync_jobs: Sync, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new image is one update a job; a class that names its own keeps it."""
    sync_jobs("--image", "app:1", commands=THREE)
    declare(monkeypatch, image="special:1")

    synced = sync_jobs("--image", "app:2", commands=THREE)

    assert synced.calls == {"Jobs.ListJobs": 1, "Jobs.UpdateJob": 3}
    assert "~ echo     image: app:1 → special:1" in synced.lines
    assert "~ nightly  image: app:1 → app:2" in synced.lines


def test_the_image_of_the_settings_is_the_last_resort(
    sync_jobs: Sync, emulator: Emulator, settings: Settings
) -> None:
    """DEFAULTS may name an image for when none is given."""
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "DEFAULTS": {"image": "app:default"}}

    sync_jobs()
    assert container(emulator).image == "app:default"

    sync_jobs("--image", "app:2")
    assert container(emulator).image == "app:2"


def test_a_new_job_needs_an_image(sync_jobs: Sync, emulator: Emulator) -> None:
    """Without one, nothing is made; a job that is there keeps its own."""
    refused = sync_jobs()
    assert (refused.status, refused.words) == (2, "echo: a new job needs an image. Add --image IMAGE.")

    sync_jobs("--image", "app:1")
    assert (sync_jobs().status, container(emulator).image) == (0, "app:1")


def test_an_orphan_is_deleted_with_prune(sync_jobs: Sync, emulator: Emulator, settings: Settings) -> None:
    """A job that no command is any more is drift; those of others are not."""
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


def test_the_surroundings_of_the_service_are_copied(
    sync_jobs: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables, secrets, their files, VPC and Cloud SQL, and no more: a job must not have cpu_idle."""
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

    task, ours = job(emulator).template.template, container(emulator)
    assert synced.calls == {"Services.GetService": 1, "Jobs.ListJobs": 1, "Jobs.CreateJob": 1}
    assert variables(emulator) == {**TOLD, "DEBUG": "0", "LANG": "ko_KR.UTF-8", "KEY": "key:latest"}
    assert (task.vpc_access.egress.name, task.vpc_access.network_interfaces[0].subnetwork) == ("ALL_TRAFFIC", "s")
    assert {mount.mount_path for mount in ours.volume_mounts} == {"/cloudsql", "/certs"}
    assert {tuple(volume.cloud_sql_instance.instances) for volume in task.volumes} == {("a:b:c",), ()}
    assert {volume.secret.secret for volume in task.volumes} == {"tls", ""}
    assert (ours.image, list(ours.ports), ours.resources.cpu_idle) == ("app:1", [], False)
    assert dict(ours.resources.limits) == {"cpu": "1000m", "memory": "512Mi"}
    again = sync_jobs("--image", "app:1", "--from-service", "web")
    assert again.lines == ["= 1 unchanged"]
    assert sync_jobs("--image", "app:1").lines == ["= 1 unchanged"]


def test_a_changed_variable_of_the_service_arrives(sync_jobs: Sync, emulator: Emulator) -> None:
    """The next sync brings it, and shows neither value."""
    emulator.services[f"{PLACE}/services/web"] = service(
        run_v2.Container(image="web", env=[run_v2.EnvVar(name="DSN", value="hunter1")])
    )
    first = sync_jobs("--image", "app:1", "--from-service", "web")
    emulator.services[f"{PLACE}/services/web"].template.containers[0].env[0].value = "hunter2"

    second = sync_jobs("--image", "app:1", "--from-service", "web")

    assert variables(emulator)["DSN"] == "hunter2"
    assert second.lines[0] == "~ echo  env_vars.DSN: another value"
    assert "hunter" not in f"{first} {second}"


def test_sidecars_are_refused(sync_jobs: Sync, emulator: Emulator) -> None:
    """A service of two containers is not copied in part."""
    emulator.services[f"{PLACE}/services/web"] = service(WEB, run_v2.Container(image="proxy"))

    synced = sync_jobs("--image", "app:1", "--from-service", "web")

    assert synced.status == 2
    assert "The service 'web' has 2 containers; sidecars cannot be copied." in synced.words
    assert synced.calls == {"Services.GetService": 1}


def test_a_job_that_is_not_ready_is_said(sync_jobs: Sync, emulator: Emulator) -> None:
    """What Cloud Run found wrong after the last sync, such as a missing image, is told at this one."""
    sync_jobs("--image", "app:1")
    condition = run_v2.Condition(
        type_="Ready", state=run_v2.Condition.State.CONDITION_FAILED, message="Image 'app:1' not found."
    )
    emulator._engine.store.jobs[ECHO].terminal_condition = condition

    assert "! echo: not ready: Image 'app:1' not found." in sync_jobs("--image", "app:1").words


def test_an_unknown_service_is_said(sync_jobs: Sync) -> None:
    """The error names it."""
    synced = sync_jobs("--image", "app:1", "--from-service", "wep")

    assert synced.status == 2
    assert f"{PLACE}/services/wep: refused." in synced.words


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
def test_a_denied_permission_is_named(sync_jobs: Sync, emulator: Emulator, method: str, permission: str) -> None:
    """The error says which permission is wanting, and which role has it."""
    emulator.faults.fail(method, "PERMISSION_DENIED", "No.")

    synced = sync_jobs("--image", "app:1")

    assert synced.status == 2
    assert f"permission denied. No. Grant {permission}" in synced.words


@pytest.mark.parametrize(
    ("code", "words"), [("NOT_FOUND", "It was deleted since"), ("ABORTED", "It was changed since")]
)
def test_a_job_that_changed_meanwhile_is_said(sync_jobs: Sync, emulator: Emulator, code: str, words: str) -> None:
    """What somebody did between the list and the write is told, and a second run finishes."""
    sync_jobs("--image", "app:1")
    emulator.faults.fail("Jobs.UpdateJob", code, "Said so.")

    synced = sync_jobs("--image", "app:2")

    assert synced.status == 2
    assert words in synced.words
    assert sync_jobs("--image", "app:2").status == 0


def test_an_edit_that_was_undone_is_said(sync_jobs: Sync, emulator: Emulator) -> None:
    """An update writes the whole job; the generation tells that somebody else did since it was listed."""
    sync_jobs("--image", "app:1")
    backend, remarks = backends.current(), list[str]()
    assert isinstance(backend, CloudRunBackend)
    store = Jobs(backend)
    desired = job_declarations.desired([echo.Command()], backend, image="app:2")
    todo = plan(desired, store.list(), environment="production")
    theirs = job(emulator)
    theirs.labels["cost"] = "high"
    update(emulator, theirs)

    failed = apply(todo.to_apply, store, lambda change, remark, error: remarks.append(remark))

    assert failed == 0
    assert remarks == ["this reverted a change that was made since the jobs were listed: check the job"]


def test_an_exhausted_quota_is_waited_for(sync_jobs: Sync, emulator: Emulator) -> None:
    """A refusal for want of quota did nothing, so the write is tried again."""
    emulator.faults.exhaust("Jobs.CreateJob")

    synced = sync_jobs("--image", "app:1")

    assert (synced.status, synced.calls["Jobs.CreateJob"]) == (0, 2)


def test_a_failure_does_not_stop_the_others(sync_jobs: Sync, emulator: Emulator) -> None:
    """The rest is applied, the status is 2, and a second run does what is left."""
    emulator.faults.fail("Jobs.CreateJob", "INTERNAL", "Oops.")

    synced = sync_jobs("--image", "app:1", commands=THREE)

    assert synced.status == 2
    assert "1 of 3 changes failed." in synced.words
    assert sync_jobs("--image", "app:1", commands=THREE).calls == {"Jobs.ListJobs": 1, "Jobs.CreateJob": 1}


def test_two_commands_of_one_name_are_refused(sync_jobs: Sync, settings: Settings) -> None:
    """They would overwrite each other in turns."""
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "tests.invalid_commands"]
    get_commands.cache_clear()

    synced = sync_jobs("--image", "app:1", commands=("--command", "twin_job", "twin-job"))

    assert "twin-job and twin_job would both be 'twin-job-production'" in synced.words
    assert synced.status == 2


def test_a_schedule_starts_the_job_with_its_arguments(
    sync_jobs: Sync, sync_schedules: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What both commands made works together: at the time, Cloud Scheduler runs the job, and tells it why."""
    script = "import os, sys; print(sys.argv[1:], os.environ['CLOUDRUN_JOBS_SCHEDULE'])"
    declare(monkeypatch, entrypoint=[sys.executable, "-c", script], image="app:1", schedule="0 9 * * *")
    emulator.clock.freeze(datetime(2026, 11, 23, 8, 0, tzinfo=UTC))
    sync_jobs()
    sync_schedules("--command", "echo")

    emulator.clock.advance(timedelta(hours=24))

    lines = wait_for(lambda: [entry.text_payload for entry in emulator.logs.all() if "echo" in entry.text_payload])
    assert lines == ["['echo'] echo-production|0 9 * * *|Asia/Tokyo"]
