"""Behaviour that only the real gcloud exercises."""

from __future__ import annotations

import json
from functools import partial

import pytest
from google.cloud import run_v2
from google.iam.v1.policy_pb2 import Policy
from google.protobuf import json_format

from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.emulator.iam.access import Iam
from cloudrun_jobs.emulator.project.documents import Documents
from tests.emulator.cloud import PLACE, eventually, job_of, script
from tests.emulator.gcloud_cli import NEEDS_GCLOUD, REGION, Gcloud
from tests.emulator.rest import Rest

pytestmark = NEEDS_GCLOUD
AT = f"--location={REGION}"


@pytest.fixture
def gcloud(emulator, tmp_path):
    return Gcloud(emulator.http, tmp_path)


def test_execute_waits_for_success(gcloud, cloud):
    """``execute --wait`` waits for an execution and returns it."""
    cloud.create(script("exit 0"))
    execution = gcloud("run", "jobs", "execute", "work", "--wait")

    assert execution["metadata"]["name"].startswith("work-")


def test_execute_reports_failure(gcloud, cloud):
    """``execute --wait`` reports a failed execution."""
    cloud.create(script("exit 3"))

    assert "The execution failed" in gcloud("run", "jobs", "execute", "work", "--wait", succeeds=False)


def test_update_writes_the_whole_job(gcloud, cloud):
    """gcloud reads a job, changes it and writes the whole job back."""
    cloud.create(script("exit 0", env={"A": "1"}))
    gcloud("run", "jobs", "update", "work", "--update-env-vars=B=2", "--tasks=3", "--task-timeout=5m")
    job = cloud.emulator.clients.jobs.get_job(name=f"{PLACE}/jobs/work")

    container = job.template.template.containers[0]
    assert {variable.name: variable.value for variable in container.env} == {"A": "1", "B": "2"}
    assert job.template.task_count == 3
    assert job.template.template.timeout.total_seconds() == 300


def test_executions_are_listed_and_deleted(gcloud, cloud):
    """gcloud lists the executions of a job and deletes one."""
    execution = cloud.finish(script("exit 0"))
    [listed] = gcloud("run", "jobs", "executions", "list", "--job=work")
    gcloud("run", "jobs", "executions", "delete", listed["metadata"]["name"])

    assert execution.name.endswith(listed["metadata"]["name"])
    assert list(cloud.emulator.clients.executions.list_executions(parent=job_of(execution))) == []


def test_scheduler_job_is_created_updated_and_run(gcloud, cloud):
    """gcloud creates a scheduler job for a Cloud Run job, updates only its schedule, and runs it."""
    cloud.create(script("echo up"))
    uri = f"--uri=https://run.googleapis.com/v2/{PLACE}/jobs/work:run"
    account = "--oauth-service-account-email=app-jobs@acme.iam.gserviceaccount.com"
    options = ("--schedule=0 * * * *", "--time-zone=Asia/Tokyo", "--max-retry-attempts=2", uri, account)
    gcloud("scheduler", "jobs", "create", "http", "tick", AT, *options)
    gcloud("scheduler", "jobs", "update", "http", "tick", AT, "--schedule=30 * * * *")
    gcloud("scheduler", "jobs", "run", "tick", AT)
    [job] = gcloud("scheduler", "jobs", "list", AT)

    assert (job["schedule"], job["timeZone"], job["state"]) == ("30 * * * *", "Asia/Tokyo", "ENABLED")
    assert job["retryConfig"]["retryCount"] == 2
    assert eventually(cloud.output) == ["up"]


def test_logs_are_read_with_a_filter(gcloud, cloud):
    """gcloud reads the output of a job with a filter."""
    cloud.finish(script("echo one; echo two >&2"))
    log_filter = "resource.type=cloud_run_job AND resource.labels.job_name=work AND logName:stderr"
    [entry] = gcloud("logging", "read", log_filter)

    assert entry["textPayload"] == "two"


def test_secrets(gcloud, tmp_path):
    """gcloud creates a secret, adds versions, and reads, disables and lists them."""
    value = tmp_path / "value"
    value.write_text("one")
    gcloud("secrets", "create", "token", "--replication-policy=automatic", f"--data-file={value}")
    value.write_text("two")
    gcloud("secrets", "versions", "add", "token", f"--data-file={value}")
    found = gcloud("secrets", "versions", "access", "latest", "--secret=token")
    gcloud("secrets", "versions", "disable", "1", "--secret=token")
    listed = gcloud("secrets", "versions", "list", "token")

    assert found["payload"]["data"] == "dHdv"
    states = {each["name"].rpartition("/")[2]: each["state"] for each in listed}
    assert states == {"2": "ENABLED", "1": "DISABLED"}


OWNER, RUNTIME = "owner@example.com", "runtime@acme.iam.gserviceaccount.com"
IMAGE = f"{REGION}-docker.pkg.dev/acme/images/app"


@pytest.fixture
def project():
    """An emulator that checks permissions, has the API of Cloud Run disabled, and knows one image."""
    policy = {"bindings": [{"role": "roles/owner", "members": [f"user:{OWNER}"]}]}
    options = {"disabled_apis": ("run.googleapis.com",), "registry": (f"{IMAGE}:1",), "secrets": {"token": "s"}}
    with Emulator(grace=1.0, iam=policy, **options) as emulator:
        yield emulator


@pytest.fixture
def owner(project, tmp_path):
    return Gcloud(project.http, tmp_path, project.tokens.access_token(OWNER))


def test_gcloud_grants_roles(project, owner):
    """gcloud enables an API, creates an account, and gives it roles on the project and on resources in it."""
    runtime, member = Rest(project, RUNTIME), f"--member=serviceAccount:{RUNTIME}"
    service = f"{PLACE}/services/web"
    project.services[service] = run_v2.Service(name=service)
    owner("services", "enable", "run.googleapis.com")
    owner("iam", "service-accounts", "create", "runtime")
    owner("run", "jobs", "create", "work", f"--image={IMAGE}:1", f"--service-account={RUNTIME}")
    bind = "add-iam-policy-binding"
    owner("projects", bind, "acme", member, "--role=roles/run.viewer")
    owner("iam", "service-accounts", bind, RUNTIME, member, "--role=roles/iam.serviceAccountUser")
    owner("run", "jobs", bind, "work", member, "--role=roles/run.invoker")
    owner("run", "services", bind, "web", member, "--role=roles/run.invoker")
    owner("secrets", bind, "token", member, "--role=roles/secretmanager.secretAccessor")
    policy = owner("projects", "get-iam-policy", "acme")

    assert {"role": "roles/run.viewer", "members": [f"serviceAccount:{RUNTIME}"]} in policy["bindings"]
    assert runtime.held(f"v1/{PLACE}/jobs/work", "run.jobs.run", "run.jobs.update") == ["run.jobs.run"]
    assert runtime.held(f"v1/{service}", "run.routes.invoke") == ["run.routes.invoke"]
    assert runtime.held(f"v1/projects/-/serviceAccounts/{RUNTIME}", "iam.serviceAccounts.actAs")
    assert runtime.held("v1/projects/acme/secrets/token", "secretmanager.versions.access")


CONDITION = '--condition=title=until 2099,expression=request.time < timestamp("2099-01-01T00:00:00Z")'


@pytest.mark.parametrize("collection", ["jobs", "services"])
def test_gcloud_changes_the_policy_of_a_resource(owner, project, tmp_path, collection):
    """gcloud adds a binding, writes the policy that it read, and removes the binding again."""
    owner("services", "enable", "run.googleapis.com")
    owner("run", "jobs", "create", "work", "--image=app")
    project.services[f"{PLACE}/services/work"] = run_v2.Service(name=f"{PLACE}/services/work")
    run = partial(owner, "run", collection)
    role = ("--role=roles/run.invoker", "--member=user:a@example.com")
    added = run("add-iam-policy-binding", "work", *role)
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(run("get-iam-policy", "work")))
    written = run("set-iam-policy", "work", str(file))
    removed = run("remove-iam-policy-binding", "work", *role)

    assert added["bindings"] == [{"role": "roles/run.invoker", "members": ["user:a@example.com"]}]
    assert written["bindings"] == added["bindings"]
    assert "bindings" not in removed


def test_gcloud_sets_conditions(owner, project):
    """gcloud adds and removes a binding with a condition, on a service and on the project."""
    project.services[f"{PLACE}/services/web"] = run_v2.Service(name=f"{PLACE}/services/web")
    owner("services", "enable", "run.googleapis.com")
    binding = ("--role=roles/run.viewer", "--member=user:a@example.com", CONDITION)
    service = owner("run", "services", "add-iam-policy-binding", "web", *binding)
    changed = owner("projects", "add-iam-policy-binding", "acme", *binding)
    printed = owner("projects", "get-iam-policy", "acme")
    removed = owner("run", "services", "remove-iam-policy-binding", "web", *binding)

    [stored] = service["bindings"]
    assert stored["condition"]["title"] == "until 2099"
    assert (service["version"], changed["version"]) == (3, 3)
    assert "bindings" not in removed
    assert Iam(printed, Documents()).allows("a@example.com", "run.jobs.list", "projects/acme")
    assert Iam(printed, Documents()).policies.get("projects/acme") == json_format.ParseDict(printed, Policy())


def test_gcloud_finds_images_and_regions(project, owner):
    """gcloud creates a repository, finds an image, fails to deploy a missing one, and lists regions and APIs."""
    enabled = owner("services", "list", "--enabled")
    owner("services", "enable", "run.googleapis.com", "sqladmin.googleapis.com")
    repository = owner("artifacts", "repositories", "create", "new", "--repository-format=docker", AT)
    image = owner("artifacts", "docker", "images", "describe", f"{IMAGE}:1")
    [listed] = owner("artifacts", "docker", "images", "list", IMAGE.rpartition("/")[0], "--include-tags")
    missing = owner("artifacts", "docker", "images", "describe", f"{IMAGE}:2", succeeds=False)
    failed = owner("run", "jobs", "create", "work", f"--image={IMAGE}:2", succeeds=False)
    regions = {each["locationId"] for each in owner("scheduler", "locations", "list")}

    assert "run.googleapis.com" not in [each["config"]["name"] for each in enabled]
    assert repository["format"] == "DOCKER"
    assert (listed["version"], listed["tags"]) == (image["image_summary"]["digest"], ["1"])
    assert "Image not found" in missing
    assert f"Image '{IMAGE}:2' not found." in failed
    assert (REGION in regions, "us-east5" in regions) == (True, False)
