"""An emulator with the example's image and the resources of docs/deploy.md before the first deployment."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, cast

import pytest
from google.cloud import run_v2, scheduler_v1
from google.iam.v1 import iam_policy_pb2, policy_pb2

from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.emulator.service import Caller
from tests.deploying.steps import REPOSITORY, ROOT, Machine
from tests.emulator.cloud import PLACE, job
from tests.emulator.gcloud_cli import Gcloud

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WEB = f"{PLACE}/services/web-production"
FIRST = f"{REPOSITORY}:first"
DEPLOYER, ADMINISTRATOR = "app-deployer@acme.iam.gserviceaccount.com", "administrator@example.com"


class HealthHandler(BaseHTTPRequestHandler):
    """Responds as the new revision, and records where the traffic was at that time."""

    web: Web

    def do_GET(self) -> None:
        self.web.requests.append((self.path, self.web.traffic()))
        self.send_response(self.web.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Log nothing."""


class Web:
    """A local server in place of the service's revisions."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.requests: list[tuple[str, list[str]]] = []
        self.emulator: Emulator | None = None

    def service(self) -> run_v2.Service:
        assert self.emulator is not None
        return self.emulator.services[WEB]

    def traffic(self) -> list[str]:
        """Return the images that get requests."""
        assert self.emulator is not None
        revisions = self.emulator.revisions
        targets = [target.revision for target in self.service().traffic_statuses if target.percent]
        return [revisions[f"{WEB}/revisions/{name}"].containers[0].image for name in targets]


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()
    handler = type("Handler", (HealthHandler,), {"web": web})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        web.url = f"http://127.0.0.1:{server.server_port}"
        yield web
        server.shutdown()
        thread.join()


@dataclass
class Project:
    """The emulator, called as an administrator: the deployment's account may do less."""

    emulator: Emulator

    def call(self, method: str, request: Any) -> Any:
        return self.emulator._service.call(method, request, Caller(ADMINISTRATOR))

    def create_account(self, account_id: str) -> None:
        """Create a service account that the deployment's account may attach to resources."""
        created = self.call("IAM.CreateServiceAccount", {"name": "projects/acme", "accountId": account_id})
        binding = {"role": "roles/iam.serviceAccountUser", "members": [f"serviceAccount:{DEPLOYER}"]}
        policy = policy_pb2.Policy(bindings=[binding])
        request = iam_policy_pb2.SetIamPolicyRequest(resource=created["name"], policy=policy)
        self.call("IAM.SetIamPolicy", request)

    def create(self, declared: run_v2.Job, job_id: str) -> None:
        declared.template.template.service_account = "app-jobs@acme.iam.gserviceaccount.com"
        self.call("Jobs.CreateJob", run_v2.CreateJobRequest(parent=PLACE, job=declared, job_id=job_id))

    def job(self, job_id: str) -> run_v2.Job:
        job: run_v2.Job = self.call("Jobs.GetJob", run_v2.GetJobRequest(name=f"{PLACE}/jobs/{job_id}"))
        return job

    def image_of(self, job_id: str) -> str:
        return self.job(job_id).template.template.containers[0].image

    def execution(self, job_id: str) -> run_v2.Execution:
        """Return the job's one execution."""
        request = run_v2.ListExecutionsRequest(parent=f"{PLACE}/jobs/{job_id}")
        [execution] = self.call("Executions.ListExecutions", request).executions
        return cast("run_v2.Execution", execution)

    def jobs(self) -> list[str]:
        jobs = self.call("Jobs.ListJobs", run_v2.ListJobsRequest(parent=PLACE)).jobs
        return [each.name.rpartition("/")[2] for each in jobs]

    def schedules(self) -> list[str]:
        jobs = self.call("CloudScheduler.ListJobs", scheduler_v1.ListJobsRequest(parent=PLACE)).jobs
        return [each.name.rpartition("/")[2] for each in jobs]


@pytest.fixture
def emulator(web: Web) -> Iterator[Emulator]:
    images = {REPOSITORY: ROOT / "example_project"}
    # The account has the roles of docs/deploy.md that its steps need, and no other.
    roles = ("run.developer", "cloudscheduler.admin", "logging.logWriter")
    bindings = [{"role": f"roles/{role}", "members": [f"serviceAccount:{DEPLOYER}"]} for role in roles]
    bindings.append({"role": "roles/owner", "members": [f"user:{ADMINISTRATOR}"]})
    options = {"services": {"web-production": web.url}, "pass_env": ("PYTHONPATH",)}
    with Emulator(grace=1.0, images=images, iam={"bindings": bindings}, **options) as emulator:
        web.emulator = emulator
        yield emulator


@pytest.fixture
def project(emulator: Emulator, tmp_path: Path) -> Project:
    """The emulator with accounts, and the jobs `migrate` and `celery-ping`, both with the first image."""
    project = Project(emulator)
    for account in ("app-web", "app-jobs", "app-scheduler"):
        project.create_account(account)
    variables = {
        "CLOUDRUN_JOBS_ENVIRONMENT": "production",
        "EXAMPLE_SECRET_KEY": "for this test",
        "EXAMPLE_DATABASE": str(tmp_path / "db.sqlite3"),
    }
    migrate = job(image=FIRST, env=variables)
    migrate.template.template.containers[0].args = ["migrate", "--noinput"]
    project.create(migrate, "migrate-production")
    project.create(job("/bin/sh", "-c", "echo pong", image=FIRST), "celery-ping-production")
    return project


@pytest.fixture
def token(emulator: Emulator) -> str:
    """The access token of the deployment's account."""
    return emulator.tokens.access_token(DEPLOYER)


@pytest.fixture
def machine(emulator: Emulator, project: Project, token: str, tmp_path: Path) -> Machine:
    """A machine of CI: gcloud reaches the emulator as its proxy, the image's commands over gRPC."""
    environment = {
        **Gcloud(emulator.http, tmp_path / "gcloud").environment(),
        "CLOUDRUN_EMULATOR_HOST": emulator.grpc,
        "CLOUDSDK_AUTH_ACCESS_TOKEN": token,
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "example_project"))),
    }
    del environment["CLOUDSDK_CORE_PROJECT"], environment["CLOUDSDK_RUN_REGION"]
    return Machine(tmp_path, environment)
