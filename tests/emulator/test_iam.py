"""Permission checks with an IAM policy."""

from __future__ import annotations

import grpc
import pytest
from google.api_core import exceptions
from google.cloud import run_v2
from google.cloud.run_v2.services.jobs.transports import JobsGrpcTransport

from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.emulator.config import InvalidConfiguration
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


def test_unknown_role_is_rejected(tmp_path):
    """A policy with an unknown role is rejected."""
    with pytest.raises(InvalidConfiguration, match="roles/nonsense"):
        Emulator(iam={"bindings": [{"role": "roles/nonsense", "members": []}]})
