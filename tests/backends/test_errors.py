"""Errors of the service become errors with the cause and a hint."""

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
    (
        Code.UNAUTHENTICATED,
        AccessDenied,
        r"requires an access token: set CLOUDRUN_JOBS\['OPTIONS'\]\['access_token'\]\.",
    ),
    (Code.NOT_FOUND, JobNotDeployed, CREATE),
    (Code.RESOURCE_EXHAUSTED, QuotaExhausted, r"a quota is exhausted\. a message"),
    (Code.INVALID_ARGUMENT, ServiceError, r"rejected\. a message"),
    (Code.UNAVAILABLE, OutcomeUnknown, r"no response\. a message\. Is a server running at 127"),
    (Code.DEADLINE_EXCEEDED, OutcomeUnknown, r"no response"),
    (Code.INTERNAL, OutcomeUnknown, r"no response"),
    (Code.ABORTED, OutcomeUnknown, r"no response"),
    (Code.CANCELLED, OutcomeUnknown, r"An execution may have started"),
    (Code.UNKNOWN, OutcomeUnknown, r"no response"),
    (Code.UNIMPLEMENTED, ServiceError, r"rejected"),
]


@pytest.mark.parametrize(("code", "kind", "message"), ANSWERS)
def test_service_error_is_translated(
    cloud_run: CloudRun, code: Code, kind: type[ServiceError], message: str
) -> None:
    """Each error of Cloud Run has a class, a message and a hint; a permanent one is not retried."""
    cloud_run.errors = [(code, "a message")] * 20

    with pytest.raises(kind, match=message) as raised:
        echo.Command().delay()

    assert type(raised.value) is kind
    assert "projects/acme/locations/asia-northeast1/jobs/echo-production" in str(raised.value)
    assert issubclass(kind, TRANSIENT_ERRORS) or len(cloud_run.requests) == 1


def test_rejected_access_token_is_reported(cloud_run: CloudRun, settings: Settings) -> None:
    """Towards a server on this machine, no other credentials are used."""
    options = {**settings.CLOUDRUN_JOBS["OPTIONS"], "access_token": "ya29.expired"}
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "OPTIONS": options}
    cloud_run.errors = [(Code.UNAUTHENTICATED, "a message")]

    with pytest.raises(AccessDenied, match=r"\['access_token'\] is invalid or has expired: set it to a new token"):
        echo.Command().delay()


@pytest.mark.usefixtures("transactional_db")
def test_missing_credentials_are_reported(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The hint says how to get credentials."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "production", "PROJECT": "acme", "REGION": "asia-northeast1"}
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # Without a metadata server.
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)

    with pytest.raises(AccessDenied, match=r"no valid credentials.*gcloud auth"):
        echo.Command().delay()


READS = [
    (Code.PERMISSION_DENIED, AccessDenied, r"Grant run\.executions\.cancel \(roles/run\.developer\)"),
    (Code.NOT_FOUND, ServiceError, r"executions/echo-production-abcde: rejected"),
    (Code.RESOURCE_EXHAUSTED, QuotaExhausted, r"Retry later\.$"),
    (Code.INTERNAL, ServiceUnavailable, r"no response"),
]


@pytest.mark.parametrize(("code", "kind", "message"), READS)
def test_error_of_cancel_names_the_execution(
    cloud_run: CloudRun, code: Code, kind: type[ServiceError], message: str
) -> None:
    """A call that starts nothing has no hint about a started execution."""
    operation = echo.Command().delay()
    cloud_run.errors = [(code, "a message")]

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
def test_invalid_options_are_rejected(settings: Settings, options: dict[str, object], message: str) -> None:
    """The endpoint must be on this machine, and the error names the option."""
    settings.CLOUDRUN_JOBS = {
        "ENVIRONMENT": "production",
        "PROJECT": "acme",
        "REGION": "asia-northeast1",
        "OPTIONS": options,
    }

    with pytest.raises(InvalidSettings) as raised:
        echo.Command().delay()

    assert message in str(raised.value)


@pytest.mark.parametrize("endpoint", ["localhost:8491", "127.1.2.3:8491", "[::1]:8491"])
def test_loopback_endpoints_are_accepted(settings: Settings, endpoint: str) -> None:
    """Any loopback address is accepted."""
    from cloudrun_jobs import backends

    settings.CLOUDRUN_JOBS = {
        "ENVIRONMENT": "production",
        "PROJECT": "acme",
        "REGION": "asia-northeast1",
        "OPTIONS": {"endpoint": endpoint},
    }

    assert backends.current().endpoint == endpoint  # type: ignore[attr-defined]


@pytest.mark.parametrize("key", ["PROJECT", "REGION"])
def test_project_and_region_are_required(settings: Settings, key: str) -> None:
    """The error names the setting and the environment variable."""
    both = {"PROJECT": "acme", "REGION": "asia-northeast1"}
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "production", **{name: v for name, v in both.items() if name != key}}

    with pytest.raises(InvalidSettings, match=f"CLOUDRUN_JOBS_{key} in the environment"):
        echo.Command().delay()
