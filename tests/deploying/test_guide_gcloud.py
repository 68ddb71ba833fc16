"""docs/deploy.md, from the first line to the last: its blocks run in one shell, against the emulator."""

from __future__ import annotations

import re

import pytest
from google.iam.v1 import iam_policy_pb2, policy_pb2

from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.emulator.names import project_number
from cloudrun_jobs.emulator.project.service_usage import TITLES
from tests.deploying.clouds import proxy
from tests.deploying.steps import ROOT, Machine, Step
from tests.emulator.gcloud_cli import NEEDS_GCLOUD, Gcloud

pytestmark = NEEDS_GCLOUD
GUIDE = ROOT / "docs" / "deploy.md"
BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
REMOVAL = "## Remove everything"
SHIM = """import os, runpy, sys
# Cloud SQL does not run here.
os.environ.pop("EXAMPLE_POSTGRES_HOST", None)
os.environ["EXAMPLE_DATABASE"] = {database!r}
sys.path[:0] = [{root!r}, {project!r}]
sys.argv[0] = {manage!r}
runpy.run_path({manage!r}, run_name="__main__")
"""
SERVICES = ("CLOUDRESOURCEMANAGER", "SERVICEUSAGE", "IAM", "ARTIFACTREGISTRY", "SQL")
HOSTS = {"SQL": "sqladmin"}


@pytest.fixture
def emulator(tmp_path):
    image = tmp_path / "image"
    image.mkdir()
    project = ROOT / "example_project"
    names = {"database": str(tmp_path / "db.sqlite3"), "manage": str(project / "manage.py")}
    (image / "manage.py").write_text(SHIM.format(root=str(ROOT), project=str(project), **names))
    # A new project has no API enabled: one that the guide forgets fails.
    with Emulator(grace=1.0, directory=image, disabled_apis=tuple(TITLES)) as emulator:
        grant_agent(emulator)
        yield emulator


def grant_agent(emulator):
    """Grant the role of Cloud Scheduler's agent, as Google does when the API is enabled."""
    agent = f"serviceAccount:service-{project_number('acme')}@gcp-sa-cloudscheduler.iam.gserviceaccount.com"
    policy = policy_pb2.Policy(bindings=[{"role": "roles/cloudscheduler.serviceAgent", "members": [agent]}])
    request = iam_policy_pb2.SetIamPolicyRequest(resource="projects/acme", policy=policy)
    emulator._service._iam.policies.set(request)


@pytest.fixture
def written():
    """What was written to the stand-ins."""
    return []


@pytest.fixture
def machine(emulator, written, tmp_path):
    with proxy(emulator.http, written) as address:
        environment = Gcloud(address, tmp_path / "gcloud").environment()
        del environment["CLOUDSDK_CORE_PROJECT"], environment["CLOUDSDK_RUN_REGION"]
        for service in SERVICES:
            host = HOSTS.get(service, service.lower())
            environment[f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{service}"] = f"http://{host}.googleapis.com/"
        environment["CLOUDRUN_EMULATOR_HOST"] = emulator.grpc
        environment["PYTHONPATH"] = str(ROOT)
        environment["EXAMPLE_DATABASE"] = str(tmp_path / "db.sqlite3")
        yield Machine(tmp_path, environment)


def script(text):
    """Return the blocks of a part of the guide as one script, which prints each command and stops at an error."""
    return "set -euxo pipefail\n" + "\n".join(BLOCK.findall(text))


def test_gcloud_follows_the_guide(machine, emulator, written):
    """Each line works: a job runs by hand and by its schedule, and `doctor` finds nothing. Then all is removed."""
    guide, removal = GUIDE.read_text().split(REMOVAL)
    settings = BLOCK.search(guide)[0].removeprefix("```sh\n").removesuffix("```")
    done = machine.run(Step("guide", script(guide), {}), timeout=900)

    assert done.returncode == 0, done.stderr[-4000:]
    place = "projects/acme/locations/asia-northeast1"
    clients = emulator.clients
    executions = list(clients.executions.list_executions(parent=f"{place}/jobs/collect-rates-production"))
    assert [each.succeeded_count for each in executions] == [1, 1]
    assert len(list(clients.scheduler.list_jobs(parent=place))) == 2

    done = machine.run(Step("removal", settings + script(removal), {}), timeout=900)

    assert done.returncode == 0, done.stderr[-4000:]
    assert list(clients.jobs.list_jobs(parent=place)) == list(clients.scheduler.list_jobs(parent=place)) == []
    assert emulator.services == {}
    assert {verb for verb, _, _ in written} == {"POST", "DELETE"}
