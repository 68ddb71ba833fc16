"""Whole deployments: each step's script, with the real gcloud, against the emulator."""

from __future__ import annotations

import pytest

from tests.deploying.conftest import FIRST, WEB
from tests.deploying.steps import IMAGE, WORKER, Step, cloud_build_steps, github_steps
from tests.deploying.test_files import NAMES
from tests.emulator.cloud import PLACE
from tests.emulator.gcloud_cli import NEEDS_GCLOUD

pytestmark = NEEDS_GCLOUD
VARIABLES = "--set-env-vars=CLOUDRUN_JOBS_ENVIRONMENT=production,EXAMPLE_SECRET_KEY=for-this-test"


@pytest.fixture(autouse=True)
def _first_revision(machine):
    """The service exists, with the first image."""
    deploy = f"gcloud run deploy web-production --image={FIRST} {VARIABLES} --no-allow-unauthenticated"
    done = machine.run(Step("first", deploy, github_steps()[0].environment))

    assert done.returncode == 0, done.stderr


def image_of(cloud, job_id):
    job = cloud.emulator.clients.jobs.get_job(name=f"{PLACE}/jobs/{job_id}")
    return job.template.template.containers[0].image


@pytest.mark.parametrize(
    "steps", [lambda: github_steps("main", WORKER), cloud_build_steps], ids=["github", "build"]
)
def test_gcloud_deployment(steps, machine, cloud, web):
    """Every step succeeds: migrated, jobs and schedules synced, and traffic on the new revision after its test."""
    names, done = machine.deploy(steps())

    assert (names, done.returncode) == (NAMES, 0), done.stderr
    assert web.requests == [("/cloudrun_jobs/health/", [FIRST])]
    assert web.traffic() == [IMAGE]
    [migration] = cloud.emulator.clients.executions.list_executions(parent=f"{PLACE}/jobs/migrate-production")
    assert migration.succeeded_count == 1
    assert image_of(cloud, "migrate-production") == image_of(cloud, "collect-rates-production") == IMAGE
    schedules = [each.name for each in cloud.emulator.clients.scheduler.list_jobs(parent=PLACE)]
    assert f"{PLACE}/jobs/collect-rates-production" in schedules
    assert [line[1] for line in machine.recorded() if line[0] == "docker"][:2] == ["build", "push"]


def test_gcloud_deploys_a_worker_and_pings_it(machine, cloud, web):
    """With instances, the worker pool gets the same image, and is pinged after it."""
    done = machine.run(github_steps("main", WORKER)[-1])
    [pool] = cloud.emulator.worker_pools.values()
    [ping] = cloud.emulator.clients.executions.list_executions(parent=f"{PLACE}/jobs/celery-ping-production")

    assert done.returncode == 0, done.stderr
    assert (pool.template.containers[0].image, pool.scaling.manual_instance_count) == (IMAGE, 2)
    assert pool.template.service_account == "app-jobs@acme.iam.gserviceaccount.com"
    assert (ping.succeeded_count, image_of(cloud, "celery-ping-production")) == (1, IMAGE)


def test_gcloud_failed_migration_stops_before_the_service(machine, cloud, web):
    """If the migration fails, there is no new revision, and no job has the new image."""
    migrate = cloud.emulator.clients.jobs.get_job(name=f"{PLACE}/jobs/migrate-production")
    migrate.template.template.containers[0].args = ["migrate", "no_such_app"]
    cloud.emulator.clients.jobs.update_job(job=migrate).result()
    names, done = machine.deploy(github_steps())

    assert (names[-1], done.returncode) == ("Migrate", 1), done.stderr
    assert "failed" in done.stderr
    assert web.service().template.containers[0].image == FIRST
    assert len(list(cloud.emulator.clients.jobs.list_jobs(parent=PLACE))) == 2


def test_gcloud_unhealthy_revision_gets_no_traffic(machine, cloud, web):
    """If the new revision is unhealthy, the deployment fails, and all traffic stays on the old one."""
    web.status = 503
    names, done = machine.deploy(github_steps())

    assert (names[-1], done.returncode != 0) == ("Smoke test", True)
    assert "503" in done.stderr
    assert (web.traffic(), WEB in cloud.emulator.services) == ([FIRST], True)
