"""What the service answers becomes an error that names the cause and the remedy."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from pytest_django import Settings

from cloudrun_jobs.backends.base import TRANSIENT_ERRORS
from cloudrun_jobs.exceptions import (
    AccessDenied,
    InvalidSettings,
    JobNotDeployed,
    OutcomeUnknown,
    QuotaExhausted,
    ServiceError,
    ServiceUnavailable,
)
from tests.backends.server import CloudRun
from tests.jobs.management.commands import echo

Code = grpc.StatusCode
CREATE = r"Create it: manage\.py sync_cloudrun_jobs --image IMAGE"
ANSWERS = [
    (Code.PERMISSION_DENIED, AccessDenied, r"run\.jobs\.run and run\.jobs\.runWithOverrides .*WithOverrides\)"),
    (Code.UNAUTHENTICATED, AccessDenied, r"gcloud auth application-default login"),
    (Code.NOT_FOUND, JobNotDeployed, CREATE),
    (Code.RESOURCE_EXHAUSTED, QuotaExhausted, r"a quota ran out\. said so"),
    (Code.INVALID_ARGUMENT, ServiceError, r"refused\. said so"),
    (Code.UNAVAILABLE, OutcomeUnknown, r"no answer\. said so\. Is a server running at 127"),
    (Code.DEADLINE_EXCEEDED, OutcomeUnknown, r"no answer"),
    (Code.INTERNAL, OutcomeUnknown, r"no answer"),
    (Code.ABORTED, OutcomeUnknown, r"no answer"),
    (Code.CANCELLED, OutcomeUnknown, r"It may have been started: look before repeating"),
    (Code.UNKNOWN, OutcomeUnknown, r"no answer"),
    (Code.UNIMPLEMENTED, ServiceError, r"refused"),
]


@pytest.mark.parametrize(("code", "kind", "message"), ANSWERS)
def test_an_answer_becomes_an_error_of_ours(
    cloud_run: CloudRun, code: Code, kind: type[ServiceError], message: str
) -> None:
    """Each refusal of Cloud Run has its class, its words and what to do; one that will last is not repeated."""
    cloud_run.errors = [(code, "said so")] * 20

    with pytest.raises(kind, match=message) as raised:
        echo.Command().delay()

    assert type(raised.value) is kind
    assert "projects/acme/locations/asia-northeast1/jobs/echo-production" in str(raised.value)
    assert issubclass(kind, TRANSIENT_ERRORS) or len(cloud_run.requests) == 1


@pytest.mark.usefixtures("transactional_db")
def test_without_credentials_nothing_is_sent(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A process that has no Google credentials is told how to get some."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "production", "PROJECT": "acme", "REGION": "asia-northeast1"}
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # Asks no metadata server: there is none here.
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)

    with pytest.raises(AccessDenied, match=r"no valid credentials.*gcloud auth"):
        echo.Command().delay()


READS = [
    (Code.PERMISSION_DENIED, AccessDenied, r"Grant run\.executions\.cancel \(roles/run\.developer\)"),
    (Code.NOT_FOUND, ServiceError, r"executions/echo-production-abcde: refused"),
    (Code.RESOURCE_EXHAUSTED, QuotaExhausted, r"Try later\.$"),
    (Code.INTERNAL, ServiceUnavailable, r"no answer"),
]


@pytest.mark.parametrize(("code", "kind", "message"), READS)
def test_an_error_of_cancel_speaks_of_the_execution(
    cloud_run: CloudRun, code: Code, kind: type[ServiceError], message: str
) -> None:
    """What is said of sending a job is not said of a call that starts nothing."""
    operation = echo.Command().delay()
    cloud_run.errors = [(code, "said so")]

    with pytest.raises(kind, match=message) as raised:
        operation.cancel()

    assert type(raised.value) is kind


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"endpoint": "10.0.0.1:80"}, "expected 'host:port' of this machine, got '10.0.0.1:80'"),
        ({"endpoint": "run.googleapis.com:443"}, "of this machine"),
        ({"endpoint": "127.0.0.1"}, "of this machine"),
        ({"endpoint": "evil@127.0.0.1.evil.example:80"}, "of this machine"),
        ({"rpc_timeout": 0}, "expected a number from 1 to 10000, got 0"),
        ({"rpc_timeout": "30"}, "expected a number from 1 to 10000, got '30'"),
        ({"endpiont": "127.0.0.1:80"}, "has no option 'endpiont'. Did you mean 'endpoint'?"),
    ],
)
def test_options_that_cannot_be_used(settings: Settings, options: dict[str, object], message: str) -> None:
    """Only a server of this machine is spoken to without credentials; bad options are refused by name."""
    settings.CLOUDRUN_JOBS = {
        "ENVIRONMENT": "production",
        "PROJECT": "acme",
        "REGION": "asia-northeast1",
        "OPTIONS": options,
    }

    with pytest.raises(InvalidSettings) as raised:
        echo.Command().delay()

    assert message in str(raised.value)


@pytest.mark.parametrize("endpoint", ["localhost:8085", "127.1.2.3:8085", "[::1]:8085"])
def test_endpoints_of_this_machine_are_taken(settings: Settings, endpoint: str) -> None:
    """Every way to name this machine will do."""
    from cloudrun_jobs import backends

    settings.CLOUDRUN_JOBS = {
        "ENVIRONMENT": "production",
        "PROJECT": "acme",
        "REGION": "asia-northeast1",
        "OPTIONS": {"endpoint": endpoint},
    }

    assert backends.current().endpoint == endpoint  # type: ignore[attr-defined]


@pytest.mark.parametrize("key", ["PROJECT", "REGION"])
def test_the_cloud_needs_a_project_and_a_region(settings: Settings, key: str) -> None:
    """Outside "local" and "test" the two must be set, and the message names both ways to do it."""
    both = {"PROJECT": "acme", "REGION": "asia-northeast1"}
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "production", **{name: v for name, v in both.items() if name != key}}

    with pytest.raises(InvalidSettings, match=f"CLOUDRUN_JOBS_{key} in the environment"):
        echo.Command().delay()
