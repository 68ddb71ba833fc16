"""Whole deployments: each step's script, with gcloud and the roles of docs/deploy.md, against the emulator."""

from __future__ import annotations

import pytest
from google.cloud import run_v2

from tests.deploying.conftest import FIRST, WEB
from tests.deploying.steps import IMAGE, WORKER, Step, cloud_build_steps, github_steps, with_token
from tests.deploying.test_files import NAMES
from tests.emulator.gcloud_cli import NEEDS_GCLOUD

pytestmark = NEEDS_GCLOUD
VARIABLES = "--set-env-vars=CLOUDRUN_JOBS_ENVIRONMENT=production,EXAMPLE_SECRET_KEY=for-this-test"
OPTIONS = f"{VARIABLES} --service-account=app-web@acme.iam.gserviceaccount.com --no-allow-unauthenticated"


@pytest.fixture(autouse=True)
def _first_revision(machine):
    """The service exists, with the first image."""
    deploy = f"gcloud run deploy web-production --image={FIRST} {OPTIONS}"
    done = machine.run(Step("first", deploy, github_steps()[0].environment))

    assert done.returncode == 0, done.stderr


def test_gcloud_deployment(machine, project, web, token):
    """Every step succeeds: migrated, jobs and schedules synced, and traffic on the new revision after its test."""
    names, done = machine.deploy(with_token(github_steps("main", WORKER), token))

    assert (names, done.returncode) == (NAMES, 0), done.stderr
    assert web.requests == [("/cloudrun_jobs/health/", [FIRST])]
    assert web.traffic() == [IMAGE]
    assert project.execution("migrate-production").succeeded_count == 1
    assert project.image_of("migrate-production") == project.image_of("collect-rates-production") == IMAGE
    assert project.schedules() == ["collect-rates-production"]
    assert [line[1] for line in machine.recorded() if line[0] == "docker"] == ["build", "push", "run"]
    [pool] = project.emulator.worker_pools.values()
    assert (pool.template.containers[0].image, pool.scaling.manual_instance_count) == (IMAGE, 2)
    assert pool.template.service_account == "app-jobs@acme.iam.gserviceaccount.com"
    assert project.execution("celery-ping-production").succeeded_count == 1


def test_gcloud_cloud_build_syncs_in_the_image(machine, project, token):
    """Cloud Build syncs in the image; without a worker, all jobs and schedules are on Cloud Run."""
    steps = [step for step in with_token(cloud_build_steps(), token) if step.name in ("Sync", "Worker")]
    names, done = machine.deploy(steps)

    assert (names, done.returncode) == (["Sync", "Worker"], 0), done.stderr
    assert project.schedules() == ["collect-rates-production", "reconcile-cloudrun-runs-production"]


def test_gcloud_failed_migration_stops_before_the_service(machine, project, web):
    """If the migration fails, there is no new revision, and no job is synced."""
    migrate = project.job("migrate-production")
    migrate.template.template.containers[0].args = ["migrate", "no_such_app"]
    project.call("Jobs.UpdateJob", run_v2.UpdateJobRequest(job=migrate))
    names, done = machine.deploy(github_steps())

    assert (names[-1], done.returncode) == ("Migrate", 1), done.stderr
    assert "failed" in done.stderr
    assert web.service().template.containers[0].image == FIRST
    assert project.jobs() == ["celery-ping-production", "migrate-production"]


def test_gcloud_unhealthy_revision_gets_no_traffic(machine, web):
    """If the new revision is unhealthy, the deployment fails, and all traffic stays on the old one."""
    web.status = 503
    steps = [step for step in github_steps() if step.name in ("New revision", "Smoke test", "Traffic")]
    names, done = machine.deploy(steps)

    assert (names[-1], done.returncode != 0) == ("Smoke test", True)
    assert "curl: (22) The requested URL returned error: 503" in done.stderr
    assert (web.traffic(), WEB in web.emulator.services) == ([FIRST], True)
