"""A project on an emulator, whose jobs are deployed as the documentation says."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import StringIO
from typing import Any, cast

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from google.api_core.exceptions import AlreadyExists
from google.cloud import run_v2, scheduler_v1
from google.protobuf.field_mask_pb2 import FieldMask
from pytest_django import Settings

from cloudrun_jobs.backends.cloudrun import clients
from cloudrun_jobs.backends.cloudrun.errors import ApiMethod
from cloudrun_jobs.backends.cloudrun.rest import RestClient
from cloudrun_jobs.backends.cloudrun.server import Server
from cloudrun_jobs.emulator import Emulator
from tests.jobs.management.commands import echo, nightly

REGION = "europe-west4"
OWNER = "owner@example.com"
CALLER = "deployer@acme.iam.gserviceaccount.com"
# What the documentation grants to the account that runs `doctor`.
CALLER_ROLES = (
    "roles/run.developer",
    "roles/cloudscheduler.admin",
    "roles/logging.viewer",
    "roles/iam.serviceAccountUser",
    "roles/iam.securityReviewer",
    "roles/serviceusage.serviceUsageViewer",
    "roles/secretmanager.viewer",
    "roles/artifactregistry.reader",
)
SCHEDULER_ROLES = ("roles/run.jobsExecutorWithOverrides", "roles/run.invoker")
AGENT_ROLE = "roles/cloudscheduler.serviceAgent"
# The initial permissions of every project.
POLICY = {
    "bindings": [
        {"role": "roles/owner", "members": [f"user:{OWNER}"]},
        {
            "role": "roles/artifactregistry.reader",
            "members": [f"serviceAccount:{CALLER}"],
        },  # The accounts that it names exist.
    ]
}
ANY = ApiMethod(permission="", role="")


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The findings, the output, the messages and the exit status of one call of `doctor`."""

    output: str
    messages: str
    status: int

    @property
    def findings(self) -> list[dict[str, Any]]:
        return cast("list[dict[str, Any]]", json.loads(self.output))

    @property
    def ids(self) -> list[str]:
        return [finding["id"] for finding in self.findings]

    @property
    def summary(self) -> list[tuple[str, str | None, str]]:
        return [(finding["id"], finding["job"], finding["fix"]) for finding in self.findings]


@dataclass
class Project:
    """A project, its settings and its jobs. Changes are the owner's, `doctor` runs as the deployer."""

    emulator: Emulator
    id: str
    settings: Settings
    monkeypatch: pytest.MonkeyPatch
    commands: tuple[str, ...] = ("echo", "nightly")
    roles: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.options: dict[str, Any] = {
            "endpoint": self.emulator.grpc,
            "access_token": self.emulator.tokens.access_token(CALLER),
            "service_account": self.account("jobs-runtime"),
            "scheduler_service_account": self.account("scheduler"),
        }
        self.values: dict[str, Any] = {
            "ENVIRONMENT": "production",
            "PROJECT": self.id,
            "REGION": REGION,
            "OPTIONS": self.options,
            "RECONCILE": {"schedule": "*/5 * * * *"},
        }
        self.apply()
        server = Server(self.emulator.grpc, self.emulator.tokens.access_token(OWNER))
        self.rest = RestClient(server, timeout=10.0)
        self._jobs, self._scheduler = clients.jobs(server), clients.scheduler(server)
        self.services = clients.services(server)

    def set(self, **values: Any) -> None:
        """Change the settings."""
        self.values |= values
        self.apply()

    def apply(self) -> None:
        """Put the changed settings in force."""
        self.settings.CLOUDRUN_JOBS = {**self.values}

    def declare(self, job: Any = echo, **declarations: Any) -> None:
        for name, value in declarations.items():
            self.monkeypatch.setattr(job.Command, name, value, raising=False)

    def image(self, tag: int) -> str:
        return f"{REGION}-docker.pkg.dev/{self.id}/jobs/app:{tag}"

    @property
    def place(self) -> str:
        return f"projects/{self.id}/locations/{REGION}"

    def account(self, name: str) -> str:
        return f"{name}@{self.id}.iam.gserviceaccount.com"

    def create_account(self, name: str) -> None:
        self.owner("iam", "POST", f"v1/projects/{self.id}/serviceAccounts", body={"accountId": name})

    def delete_account(self, name: str) -> None:
        self.owner("iam", "DELETE", f"v1/projects/{self.id}/serviceAccounts/{self.account(name)}")

    @property
    def number(self) -> str:
        return str(self.owner("cloudresourcemanager", "GET", f"v1/projects/{self.id}")["projectNumber"])

    @property
    def default_account(self) -> str:
        return f"{self.number}-compute@developer.gserviceaccount.com"

    @property
    def agent(self) -> str:
        return f"service-{self.number}@gcp-sa-cloudscheduler.iam.gserviceaccount.com"

    def deploy(self) -> None:
        """Create the accounts, grant the roles, and sync the jobs and the schedules."""
        for name in ("jobs-runtime", "scheduler"):
            self.create_account(name)
        self.roles = [(CALLER, role) for role in CALLER_ROLES]
        self.roles += [(self.account("scheduler"), role) for role in SCHEDULER_ROLES]
        self.roles.append((self.agent, AGENT_ROLE))
        self.grant()
        self.emulator.images.push(self.image(1))
        self.emulator.images.push(self.image(2))
        self.manage("sync_cloudrun_jobs", "--image", self.image(1), "--command", *self.commands)
        self.manage("sync_cloudrun_schedules", "--command", *self.commands)

    def grant(self) -> None:
        """Write the roles into the policy of the project."""
        bindings = [*POLICY["bindings"]]
        bindings += [{"role": role, "members": [f"serviceAccount:{account}"]} for account, role in self.roles]
        path = f"v1/projects/{self.id}:setIamPolicy"
        self.owner("cloudresourcemanager", "POST", path, body={"policy": {"bindings": bindings}})

    def allow(self, account: str, role: str) -> None:
        self.roles.append((account, role))
        self.grant()

    def revoke(self, account: str, *roles: str) -> None:
        self.roles = [(holder, role) for holder, role in self.roles if holder != account or role not in roles]
        self.grant()

    def owner(self, service: str, verb: str, path: str, **options: Any) -> dict[str, Any]:
        """Call a service as the owner of the project."""
        return self.rest.call(service, verb, path, ANY, resource=path, **options)

    def job(self, name: str = "echo-production") -> run_v2.Job:
        return self._jobs.get_job(name=f"{self.place}/jobs/{name}")

    def update_job(self, job: run_v2.Job) -> None:
        self._jobs.update_job(job=job)

    def create_job(self, job: run_v2.Job, name: str) -> None:
        self._jobs.create_job(parent=self.place, job=job, job_id=name)

    def delete_job(self, name: str = "echo-production") -> None:
        self._jobs.delete_job(name=f"{self.place}/jobs/{name}")

    def update_schedule(self, *masks: str, name: str = "nightly-production", **values: Any) -> None:
        job = scheduler_v1.Job(name=f"{self.place}/jobs/{name}", **values)
        self._scheduler.update_job(job=job, update_mask=FieldMask(paths=masks or values))

    def delete_schedule(self, name: str = "nightly-production") -> None:
        self._scheduler.delete_job(name=f"{self.place}/jobs/{name}")

    def add_service(self) -> None:
        """Deploy a web service, and let `nightly` run in it."""
        service = run_v2.Service()
        service.template.containers = [run_v2.Container(image=self.image(1))]
        service.template.scaling.min_instance_count = 1
        with suppress(AlreadyExists):
            self.services.create_service(parent=self.place, service_id="web", service=service)
        url = self.service().uri
        self.options["service_url"] = url
        self.values["HTTP"] = {"OIDC": {"audience": url, "emails": [self.account("scheduler")]}}
        self.apply()
        self.declare(nightly, target="service", timeout=300)
        self.manage("sync_cloudrun_jobs", "--command", "nightly")
        self.manage("sync_cloudrun_schedules", "--command", "nightly")

    def move_service(self, url: str) -> None:
        """Use another URL of the service, in the settings and in its Scheduler job."""
        self.options["service_url"] = url
        self.values["HTTP"] = {"OIDC": {**self.values["HTTP"]["OIDC"], "audience": url}}
        self.apply()
        self.manage("sync_cloudrun_schedules", "--command", "nightly")

    def service(self) -> run_v2.Service:
        return self.services.get_service(name=f"{self.place}/services/web")

    def update_service(self, **template: Any) -> None:
        service = self.service()
        for name, value in template.items():
            setattr(service.template, name, value)
        self.services.update_service(service=service)

    def freeze_traffic(self) -> None:
        """Send all requests to the current revision, whatever is deployed later."""
        service = self.service()
        revision = service.latest_ready_revision.rpartition("/")[2]
        kind = run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION
        service.traffic = [run_v2.TrafficTarget(type_=kind, revision=revision, percent=100)]
        self.services.update_service(service=service)

    def add_secret(self, name: str) -> None:
        path = f"v1/projects/{self.id}/secrets"
        body: dict[str, Any] = {"replication": {"automatic": {}}}
        if self.has_secret(name):
            return
        self.owner("secretmanager", "POST", path, body=body, secretId=name)
        payload = {"payload": {"data": base64.b64encode(b"some value").decode()}}
        self.owner("secretmanager", "POST", f"{path}/{name}:addVersion", body=payload)
        self.allow_secret(name)

    def has_secret(self, name: str) -> bool:
        found = self.owner("secretmanager", "GET", f"v1/projects/{self.id}/secrets")
        return any(secret["name"].endswith(f"/{name}") for secret in found.get("secrets", ()))

    def allow_secret(self, name: str, *accounts: str) -> None:
        """Grant the jobs' account, or these accounts, access to the secret."""
        role = "roles/secretmanager.secretAccessor"
        members = [f"serviceAccount:{account}" for account in accounts or [self.account("jobs-runtime")]]
        body = {"policy": {"bindings": [{"role": role, "members": members}]}}
        self.owner("secretmanager", "POST", f"v1/projects/{self.id}/secrets/{name}:setIamPolicy", body=body)

    def use_secret(self, name: str = "api-key") -> None:
        """Let `echo` read a secret, and sync it."""
        self.declare(secrets={"API_KEY": name})
        self.manage("sync_cloudrun_jobs", "--command", "echo")

    def manage(self, *command: str) -> None:
        call_command(*command, stdout=StringIO(), stderr=StringIO(), skip_checks=True)

    def mend(self, fix: str) -> None:
        """Run a command line of `manage.py`."""
        program, *command = shlex.split(fix)
        assert program == "manage.py"
        self.manage(*command)

    def doctor(self, *args: str, commands: Sequence[str] | None = None, as_json: bool = True) -> Diagnosis:
        stdout, stderr, status = StringIO(), StringIO(), 0
        names = self.commands if commands is None else commands
        selected = ["--command", *names] if names else []
        options = [*(["--json"] if as_json else []), *selected, *args]
        try:
            call_command("cloudrun_jobs", "doctor", *options, stdout=stdout, stderr=stderr)
        except CommandError as error:
            status = error.returncode
            stderr.write(str(error))
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        return Diagnosis(stdout.getvalue(), stderr.getvalue(), status)


__all__ = ["Diagnosis", "Project", "echo", "nightly"]
