"""`doctor` beside a service that fails, and with Google's own credentials."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import requests
from google.auth.credentials import Credentials
from google.cloud import run_v2

from cloudrun_jobs.backends.cloudrun import rest
from cloudrun_jobs.backends.cloudrun.errors import ApiMethod
from cloudrun_jobs.backends.cloudrun.rest import RestClient
from cloudrun_jobs.backends.cloudrun.server import Server
from cloudrun_jobs.doctor import execution, facts
from cloudrun_jobs.doctor.commands import project_of
from cloudrun_jobs.exceptions import ServiceError, ServiceUnavailable
from cloudrun_jobs.models import JobRun
from tests.doctor.project import CALLER, Project, nightly


class MachineCredentials(Credentials):  # type: ignore[misc]  # google-auth has no types
    """The credentials of a machine, which know their account once they have a token."""

    service_account_email = "default"

    def refresh(self, request: Any) -> None:
        self.token, self.service_account_email = "ya29.token", "web@acme.iam.gserviceaccount.com"


def test_account_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The account of Google's credentials is known without a call of another service."""
    monkeypatch.setattr(rest, "default", lambda scopes: (MachineCredentials(), "acme"))

    assert RestClient(Server(), timeout=1.0).account() == "web@acme.iam.gserviceaccount.com"


def test_google_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that does not answer is a service that is unavailable."""
    monkeypatch.setattr(rest, "default", lambda scopes: (MachineCredentials(), "acme"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    method = ApiMethod(permission="", role="")

    with pytest.raises(ServiceUnavailable, match=r"iam\.googleapis\.com"):
        RestClient(Server(), timeout=1.0).call("iam", "GET", "v1/roles/viewer", method, resource="roles/viewer")


def test_answer_that_is_no_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page of a proxy is a service that is unavailable."""
    page = requests.Response()
    page.status_code, page._content = 200, b"<html>"
    monkeypatch.setattr(requests.Session, "request", lambda *args, **options: page)
    method = ApiMethod(permission="", role="")

    with pytest.raises(ServiceUnavailable):
        RestClient(Server("127.0.0.1:1"), timeout=1.0).call("iam", "GET", "v1", method, resource="roles/viewer")


def test_account_that_cannot_be_determined(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest is checked all the same; the fix has a placeholder for the account."""
    project.revoke(CALLER, "roles/iam.serviceAccountUser")
    monkeypatch.setattr(RestClient, "account", _fail)
    found = project.doctor(as_json=False)

    assert "as an account that cannot be determined (It failed.)." in found.messages
    assert "--member=MEMBER --role=roles/iam.serviceAccountUser" in found.output


def _fail(*args: Any) -> Any:
    raise ServiceError("It failed.")


@pytest.mark.parametrize("step", ["_start", "_wait"])
def test_execution_that_cannot_be_started_or_read(
    project: Project, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """It is named as not checked; a job that does not exist is left out."""
    project.declare(nightly, entrypoint=("/bin/true",))
    project.manage("sync_cloudrun_jobs", "--command", "nightly")
    project.delete_job()
    monkeypatch.setattr(execution, step, _fail)
    found = project.doctor("--execute")

    assert found.ids == ["job_missing"]
    assert found.messages.count("Not checked: execution_failed. It failed.") == 1


def test_execution_that_does_not_end(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time limit, that is the finding."""
    project.declare(entrypoint=("/bin/sh", "-c", "exec sleep 60"))
    project.manage("sync_cloudrun_jobs", "--command", "echo")
    monkeypatch.setattr(execution, "TIME_LIMIT_SECONDS", 0.1)
    found = project.doctor("--execute", commands=["echo"])

    assert found.ids == ["execution_failed"]
    assert "it has not ended within 0 seconds" in found.findings[0]["message"]


def test_lists_of_several_pages(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """All pages of a list are read."""
    monkeypatch.setattr(facts, "PAGE_SIZE", 10)

    assert project.doctor().findings == []


def test_project_without_an_answer(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a service does not know the project, that is named."""
    monkeypatch.setattr(facts.Facts, "_get", lambda *args, **options: None)
    found = project.doctor()

    assert f"v1/projects/{project.id}: not found. Is {project.id} the project's id?" in found.messages


def test_web_service_without_oidc(project: Project) -> None:
    """Settings without `OIDC` reject every Scheduler job."""
    project.add_service()
    project.set(HTTP={})
    found = project.doctor()

    assert found.ids == ["oidc_rejected"]
    assert found.findings[0]["fix"] == (
        f"In the settings: CLOUDRUN_JOBS['HTTP']['OIDC'] = {{'audience': '{project.service().uri}',"
        f" 'emails': ['{project.account('scheduler')}']}}"
    )


def test_missing_secret_of_an_account_with_access(project: Project) -> None:
    """An account that may read all secrets of the project needs no other role; other volumes are no secrets."""
    project.allow(project.account("jobs-runtime"), "roles/secretmanager.secretAccessor")
    project.use_secret()
    job = project.job()
    job.template.template.volumes.append(run_v2.Volume(name="scratch", empty_dir={}))
    project.update_job(job)

    assert [finding["fix"] for finding in project.doctor().findings] == [
        f"gcloud secrets create api-key --data-file=FILE --project={project.id}"
    ]


def test_other_failures_are_no_rate_limits(project: Project) -> None:
    """A number 429 within another one is no status."""
    given = {"command": "echo", "environment": "production", "trigger": "delay", "status": "failed"}
    JobRun.objects.create(finished_at=datetime.now(UTC), error_message="Order 14290 is invalid.", **given)

    assert project.doctor().findings == []


@pytest.mark.parametrize(
    ("account", "expected"),
    [
        ("jobs@other.iam.gserviceaccount.com", "other"),
        ("other@appspot.gserviceaccount.com", "other"),
        ("me@example.com", "acme"),
    ],
)
def test_project_of_an_account(account: str, expected: str) -> None:
    """The address of a service account names its project."""
    assert project_of(account, "acme") == expected
