"""Permission checks with an IAM policy."""

from __future__ import annotations

import logging

import grpc
import pytest
from google.api_core import exceptions
from google.cloud import run_v2
from google.cloud.run_v2.services.jobs.transports import JobsGrpcTransport
from google.iam.v1 import iam_policy_pb2, policy_pb2
from google.protobuf import json_format

from cloudrun_jobs.emulator.errors import ServiceError
from cloudrun_jobs.emulator.iam.access import Iam
from cloudrun_jobs.emulator.names import default_account
from cloudrun_jobs.emulator.project.documents import Documents
from tests.emulator.cloud import PLACE, script

INVOKER = "serviceAccount:invoker@acme.iam.gserviceaccount.com"
EXECUTOR = "serviceAccount:executor@acme.iam.gserviceaccount.com"
POLICY = {
    "bindings": [
        {"role": "roles/owner", "members": ["user:owner@example.com"]},
        {"role": "roles/run.invoker", "members": [INVOKER]},
        {"role": "roles/run.jobsExecutorWithOverrides", "members": [EXECUTOR]},
        {"role": "run.operations.get", "members": [INVOKER]},
    ]
}


@pytest.fixture
def cloudrun_emulator_options():
    return {"grace": 1.0, "iam": POLICY}


class Caller:
    """A client that sends the access token of an account."""

    def __init__(self, emulator, email):
        self.client = run_v2.JobsClient(transport=JobsGrpcTransport(channel=grpc.insecure_channel(emulator.grpc)))
        self.metadata = [("authorization", f"Bearer {emulator.tokens.access_token(email)}")]

    def __call__(self, method, request):
        return getattr(self.client, method)(request, metadata=self.metadata)


@pytest.fixture
def client_for(emulator):
    callers = []

    def client_for(account):
        email = account if "@" in account else f"{account}@acme.iam.gserviceaccount.com"
        callers.append(Caller(emulator, email))
        return callers[-1]

    yield client_for
    for caller in callers:
        caller.client.transport.close()


@pytest.fixture
def name(client_for):
    request = {"parent": PLACE, "job_id": "work", "job": script("exit 0")}
    return client_for("owner@example.com")("create_job", request).metadata.name


def test_anonymous_call_is_rejected(cloud):
    """A call without a token is rejected."""
    with pytest.raises(exceptions.Unauthenticated):
        cloud.emulator.clients.jobs.list_jobs(parent=PLACE)


def test_invoker_can_only_run_jobs(client_for, name):
    """The invoker may run a job without overrides, but not with overrides, and may not read it."""
    invoker = client_for("invoker")
    overrides = {"task_count": 2}

    assert invoker("run_job", {"name": name}).metadata.name

    with pytest.raises(exceptions.PermissionDenied, match=r"run\.jobs\.runWithOverrides"):
        invoker("run_job", {"name": name, "overrides": overrides})
    with pytest.raises(exceptions.PermissionDenied, match=r"run\.jobs\.get"):
        invoker("get_job", {"name": name})


def test_executor_can_override_but_not_poll(client_for, name):
    """The role for overrides may start an execution with overrides, but not poll its operation."""
    executor = client_for("executor")
    operation = executor("run_job", {"name": name, "overrides": {"task_count": 2}})

    with pytest.raises(exceptions.PermissionDenied, match=r"run\.operations\.get"):
        executor("get_operation", {"name": operation.operation.name})

    assert client_for("invoker")("get_operation", {"name": operation.operation.name}).name


NUMBER = "123456789012"
COMPUTE = f"{NUMBER}-compute@developer.gserviceaccount.com"
POOL = "principalSet://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/*"
# As `gcloud projects get-iam-policy --format=json` prints it.
PRINTED = {
    "auditConfigs": [{"auditLogConfigs": [{"logType": "DATA_READ"}], "service": "allServices"}],
    "bindings": [
        {"members": ["user:owner@example.com"], "role": "roles/owner"},
        {"members": [f"serviceAccount:{NUMBER}@cloudservices.gserviceaccount.com"], "role": "roles/editor"},
        {"members": ["user:viewer@example.com", "group:staff@example.com"], "role": "roles/viewer"},
        {"members": ["group:staff@example.com", "domain:example.org"], "role": "roles/run.developer"},
        {"members": [f"serviceAccount:{COMPUTE}"], "role": "roles/secretmanager.secretAccessor"},
        {
            "members": [f"serviceAccount:service-{NUMBER}@gcp-sa-workflows.iam.gserviceaccount.com"],
            "role": "roles/workflows.serviceAgent",
        },
        {
            "members": [f"serviceAccount:service-{NUMBER}@container-engine-robot.iam.gserviceaccount.com"],
            "role": "roles/container.serviceAgent",
        },
        {"members": ["user:dba@example.com"], "role": "roles/cloudsql.admin"},
        {"members": ["user:new@example.com"], "role": "roles/newservice.admin"},
        {"members": ["user:new@example.com"], "role": "roles/browser"},
        {"members": ["user:custom@example.com"], "role": "projects/acme/roles/deployer"},
        {"members": ["user:custom@example.com"], "role": "organizations/99/roles/auditor"},
        {
            "members": ["deleted:user:gone@example.com?uid=1", "deleted:serviceAccount:gone@a.iam?uid=2"],
            "role": "roles/run.admin",
        },
        {
            "condition": {"expression": "request.time.getHours() > 7", "title": "office hours"},
            "members": ["user:clerk@example.com"],
            "role": "roles/run.invoker",
        },
        {"members": ["user:hidden@example.com"], "role": "roles/run.invoker_withcond_2b17cc25d2cd9e2c54d8"},
        {
            "members": [
                "principal://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/subject/s",
                POOL,
            ],
            "role": "roles/run.viewer",
        },
        {"members": ["user:tester@example.com"], "role": "run.operations.get"},
    ],
    "etag": "BwYpHY4pYmQ=",
    "version": 3,
}
DEFAULT_ACCOUNT = default_account("acme")
PROJECT = "projects/acme"


@pytest.fixture(scope="module")
def iam():
    return Iam(PRINTED, Documents())


@pytest.mark.parametrize(
    ("principal", "permission", "is_granted"),
    [
        ("owner@example.com", "run.jobs.setIamPolicy", True),
        ("owner@example.com", "run.jobs.runWithOverrides", True),
        ("owner@example.com", "iam.roles.create", True),
        (f"{NUMBER}@cloudservices.gserviceaccount.com", "run.jobs.create", True),
        (f"{NUMBER}@cloudservices.gserviceaccount.com", "iam.serviceAccounts.actAs", True),
        (f"{NUMBER}@cloudservices.gserviceaccount.com", "run.jobs.setIamPolicy", False),
        (f"{NUMBER}@cloudservices.gserviceaccount.com", "secretmanager.versions.access", False),
        ("viewer@example.com", "run.jobs.list", True),
        ("viewer@example.com", "run.jobs.run", False),
        ("viewer@example.com", "secretmanager.secrets.list", True),
        ("staff@example.com", "run.jobs.list", False),
        ("anyone@example.org", "run.jobs.run", True),
        ("anyone@sub.example.org", "run.jobs.run", False),
        (COMPUTE, "secretmanager.versions.access", True),
        (DEFAULT_ACCOUNT, "secretmanager.versions.access", True),
        (DEFAULT_ACCOUNT, "run.jobs.get", False),
        (f"service-{NUMBER}@gcp-sa-workflows.iam.gserviceaccount.com", "iam.serviceAccounts.getAccessToken", True),
        (f"service-{NUMBER}@container-engine-robot.iam.gserviceaccount.com", "run.jobs.get", False),
        ("dba@example.com", "serviceusage.services.list", True),
        ("dba@example.com", "run.jobs.list", False),
        ("new@example.com", "resourcemanager.projects.getIamPolicy", True),
        ("custom@example.com", "run.jobs.list", False),
        ("gone@example.com", "run.jobs.list", False),
        ("clerk@example.com", "run.jobs.run", True),
        ("hidden@example.com", "run.jobs.run", True),
        (
            "principal://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/subject/s",
            "run.jobs.list",
            True,
        ),
        (
            "principal://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/subject/t",
            "run.jobs.list",
            False,
        ),
        ("tester@example.com", "run.operations.get", True),
        ("tester@example.com", "run.operations.list", False),
    ],
)
def test_printed_policy_grants_its_roles(iam, principal, permission, is_granted):
    """A policy that gcloud printed grants the permissions of the roles that the emulator knows."""
    assert iam.allows(principal, permission, PROJECT) is is_granted


def test_unevaluated_parts_of_a_policy_are_named_once(caplog):
    """Groups, conditions and roles that the emulator does not evaluate are named in one warning."""
    with caplog.at_level(logging.WARNING):
        Iam(PRINTED, Documents()).warn_of_unevaluated()

    (message,) = caplog.messages
    assert message == (
        "The emulator checks a part of the IAM policy. Not evaluated: "
        "group:staff@example.com in roles/viewer, roles/run.developer; "
        f"{POOL} in roles/run.viewer; "
        "roles/newservice.admin; projects/acme/roles/deployer; organizations/99/roles/auditor; "
        "condition 'office hours' in roles/run.invoker; a condition in roles/run.invoker."
    )


def test_evaluated_policy_is_silent(caplog):
    """A policy that the emulator evaluates completely causes no warning."""
    with caplog.at_level(logging.WARNING):
        Iam(POLICY, Documents()).warn_of_unevaluated()

    assert caplog.messages == []


def test_custom_role_with_a_definition_is_evaluated(caplog):
    """A custom role of the file grants its permissions if the emulator has its definition."""
    documents = Documents()
    documents.put("role", "projects/acme/roles/deployer", {"includedPermissions": ["run.jobs.list"]})
    iam = Iam(
        {"bindings": [{"role": "projects/acme/roles/deployer", "members": ["user:a@example.com"]}]}, documents
    )
    with caplog.at_level(logging.WARNING):
        iam.warn_of_unevaluated()

    assert iam.allows("a@example.com", "run.jobs.list", PROJECT)
    assert caplog.messages == []


def test_printed_policy_is_returned_unchanged(iam):
    """The policy of a project is the one that gcloud printed, which starts another emulator alike."""
    policy = json_format.MessageToDict(iam.policies.get(PROJECT))

    assert policy == PRINTED
    assert json_format.MessageToDict(Iam(policy, Documents()).policies.get(PROJECT)) == PRINTED


def test_conditions_are_not_lost_by_old_clients(iam):
    """A policy with conditions is not replaced by a caller that read it without them."""
    policy = policy_pb2.Policy(version=1, etag=iam.policies.get(PROJECT).etag)

    with pytest.raises(ServiceError, match=r"version \(1\) cannot be less than the existing policy version \(3\)"):
        iam.policies.set(iam_policy_pb2.SetIamPolicyRequest(resource=PROJECT, policy=policy))
