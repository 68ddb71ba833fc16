"""Who may call what, when a policy says so."""

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
    """A client that calls in somebody's name."""

    def __init__(self, emulator, email):
        self.client = run_v2.JobsClient(transport=JobsGrpcTransport(channel=grpc.insecure_channel(emulator.grpc)))
        self.metadata = [("authorization", f"Bearer {emulator.tokens.access_token(email)}")]

    def __call__(self, method, request):
        return getattr(self.client, method)(request, metadata=self.metadata)


@pytest.fixture
def calling(emulator):
    callers = []

    def calling(account):
        email = account if "@" in account else f"{account}@acme.iam.gserviceaccount.com"
        callers.append(Caller(emulator, email))
        return callers[-1]

    yield calling
    for caller in callers:
        caller.client.transport.close()


@pytest.fixture
def name(calling):
    request = {"parent": PLACE, "job_id": "work", "job": script("exit 0")}
    return calling("owner@example.com")("create_job", request).metadata.name


def test_anonymous(cloud):
    """Without a token nothing is answered."""
    with pytest.raises(exceptions.Unauthenticated):
        cloud.emulator.clients.jobs.list_jobs(parent=PLACE)


def test_invoker(calling, name):
    """The invoker may run a job as it is, but neither change it for one execution nor read it."""
    invoker = calling("invoker")
    overrides = {"task_count": 2}

    assert invoker("run_job", {"name": name}).metadata.name

    with pytest.raises(exceptions.PermissionDenied, match=r"run\.jobs\.runWithOverrides"):
        invoker("run_job", {"name": name, "overrides": overrides})
    with pytest.raises(exceptions.PermissionDenied, match=r"run\.jobs\.get"):
        invoker("get_job", {"name": name})


def test_executor_with_overrides(calling, name):
    """The role for overrides is enough to start an execution with some, and not to poll its operation."""
    executor = calling("executor")
    operation = executor("run_job", {"name": name, "overrides": {"task_count": 2}})

    with pytest.raises(exceptions.PermissionDenied, match=r"run\.operations\.get"):
        executor("get_operation", {"name": operation.operation.name})

    assert calling("invoker")("get_operation", {"name": operation.operation.name}).name


def test_unknown_role(tmp_path):
    """A role that the emulator does not know is refused at the start."""
    with pytest.raises(InvalidConfiguration, match="roles/nonsense"):
        Emulator(iam={"bindings": [{"role": "roles/nonsense", "members": []}]})
