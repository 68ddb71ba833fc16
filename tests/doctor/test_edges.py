"""`doctor` with a service that fails, and with Google's own credentials."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest
import requests
from google.auth.credentials import Credentials
from google.cloud import run_v2, scheduler_v1

from cloudrun_jobs.backends.base import Request
from cloudrun_jobs.backends.cloudrun import rest
from cloudrun_jobs.backends.cloudrun.errors import ApiMethod
from cloudrun_jobs.backends.cloudrun.rest import RestClient
from cloudrun_jobs.backends.cloudrun.server import Server
from cloudrun_jobs.conf import RECONCILE_COMMAND
from cloudrun_jobs.doctor import execution, facts
from cloudrun_jobs.doctor.checks.schedules import reconcile_unscheduled
from cloudrun_jobs.doctor.commands import project_of
from cloudrun_jobs.exceptions import ServiceError, ServiceUnavailable
from cloudrun_jobs.management.selection import cloudrun_backend
from cloudrun_jobs.models import JobRun
from tests.doctor.project import ANY, CALLER, OWNER, Project, nightly
from tests.doctor.test_doctor import CHECKED


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
    """A proxy that does not respond is reported as an unavailable service."""
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
    """The other checks still run; the fix has a placeholder for the account."""
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
    """The job is reported as not checked; a job that does not exist is skipped."""
    project.declare(nightly, entrypoint=CHECKED)
    project.manage("sync_cloudrun_jobs", "--command", "nightly")
    project.delete_job()
    monkeypatch.setattr(execution, step, _fail)
    found = project.doctor("--execute")

    assert found.ids == ["job_missing"]
    assert found.messages.count("Not checked: execution_failed. It failed.") == 1


def test_execution_that_does_not_end(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """An execution that has not ended within the time limit is a finding."""
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
    """A project that a service does not know is reported."""
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
    """An account that may read all secrets of the project needs no other role; other volumes are not secrets."""
    project.allow(project.account("jobs-runtime"), "roles/secretmanager.secretAccessor")
    project.use_secret()
    job = project.job()
    job.template.template.volumes.append(run_v2.Volume(name="scratch", empty_dir={}))
    project.update_job(job)

    assert [finding["fix"] for finding in project.doctor().findings] == [
        f"gcloud secrets create api-key --data-file=- --project={project.id}"
    ]


def test_other_failures_are_no_rate_limits(project: Project) -> None:
    """The digits 429 within another number are not a status."""
    given = {"command": "echo", "environment": "production", "trigger": "delay", "status": "failed"}
    JobRun.objects.create(finished_at=datetime.now(UTC), error_message="Order 14290 is invalid.", **given)

    assert project.doctor().findings == []


@pytest.mark.parametrize(
    ("account", "expected"),
    [
        ("app-jobs@other.iam.gserviceaccount.com", "other"),
        ("other@appspot.gserviceaccount.com", "other"),
        ("me@example.com", "acme"),
        ("jobs@web.example.com.iam.gserviceaccount.com", "example.com:web"),
    ],
)
def test_project_of_an_account(account: str, expected: str) -> None:
    """The address of a service account names its project."""
    assert project_of(account, "acme") == expected


@pytest.mark.parametrize("api", ["serviceusage", "cloudresourcemanager", "iam", "artifactregistry"])
def test_api_that_the_checks_need(project: Project, api: str) -> None:
    """Without an API that the checks themselves call, that is the finding."""
    name = f"{api}.googleapis.com"
    project.owner("serviceusage", "POST", f"v1/projects/{project.id}/services/{name}:disable", body={})
    found = project.doctor()

    fix = f"gcloud services enable {name} --project={project.id}"
    assert (found.summary, found.status) == ([("api_disabled", None, fix)], 1)


def test_role_with_a_condition(project: Project) -> None:
    """A condition is taken to be true, on the project and on a resource."""
    scheduler, role = f"serviceAccount:{project.account('scheduler')}", "roles/run.jobsExecutorWithOverrides"
    project.revoke(project.account("scheduler"), role)
    policy = f"v2/{project.place}/jobs/nightly-production"
    condition = {"title": "office hours", "expression": "request.time.getHours() > 7"}
    bindings = [{"role": role, "members": [scheduler], "condition": condition}]
    project.owner("run", "POST", f"{policy}:setIamPolicy", body={"policy": {"bindings": bindings, "version": 3}})
    hidden = project.owner("run", "GET", f"{policy}:getIamPolicy")["bindings"][0]

    assert project.doctor().findings == []
    assert hidden["role"].startswith(f"{role}_withcond_")
    assert "condition" not in hidden


def test_person_as_account_of_cloud_scheduler(project: Project) -> None:
    """An address that is not a service account is a finding, and is not looked up."""
    project.options["scheduler_service_account"] = "dev@example.com"
    project.apply()
    (found,) = [each for each in project.doctor().findings if each["id"] == "account_missing"]

    assert found["message"] == "dev@example.com is not a service account, so nothing can run as it."


def test_roles_are_not_granted_on_a_missing_job(project: Project) -> None:
    """The missing job is found; what its policy lacks is found once it exists."""
    project.roles.append((CALLER, "roles/run.viewer"))
    project.revoke(CALLER, "roles/run.developer")
    binding = {"role": "roles/run.jobsExecutorWithOverrides", "members": [f"serviceAccount:{CALLER}"]}
    path = f"v2/{project.place}/jobs/echo-production:setIamPolicy"
    project.owner("run", "POST", path, body={"policy": {"bindings": [binding]}})
    project.delete_job("nightly-production")

    assert sorted(project.doctor().ids) == ["job_missing", "permission_sync"]


def test_no_region_with_cloud_scheduler(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a region to propose, the fix names the command that lists them."""
    monkeypatch.setattr(facts.Facts, "scheduler_regions", lambda self: set())
    (found,) = project.doctor().findings

    assert found["fix"].endswith("= a region that `gcloud scheduler locations list` shows")


def test_service_in_another_region(project: Project) -> None:
    """The URL of a service names its region, which its commands need."""
    service = run_v2.Service()
    service.template.containers = [run_v2.Container(image=project.image(1))]
    place = f"projects/{project.id}/locations/europe-west1"
    project.services.create_service(parent=place, service_id="other", service=service)
    project.add_service()
    project.move_service(project.services.get_service(name=f"{place}/services/other").uri)

    fix = f"gcloud run services update other --min-instances=1 --region=europe-west1 --project={project.id}"
    assert project.doctor().summary == [("service_cold", None, fix)]


def test_reconcile_that_is_paused(project: Project) -> None:
    """A pause of the schedule that reconciles runs is a finding."""
    project.manage("sync_cloudrun_jobs", "--image", project.image(1), "--command", RECONCILE_COMMAND)
    project.manage("sync_cloudrun_schedules", "--command", RECONCILE_COMMAND)
    name = f"{project.place}/jobs/reconcile-cloudrun-runs-production"
    project.emulator.scheduler.entries[name].job.state = scheduler_v1.Job.State.PAUSED
    found = project.doctor(commands=[*project.commands, RECONCILE_COMMAND])

    fix = f"manage.py cloudrun_jobs resume {RECONCILE_COMMAND}"
    assert found.summary == [("reconcile_unscheduled", None, fix)]


def test_reconcile_that_is_removed_from_the_settings(project: Project) -> None:
    """Its job and its schedule are not to be deleted, while another finding proposes to schedule it."""
    project.manage("sync_cloudrun_jobs", "--image", project.image(1), "--command", RECONCILE_COMMAND)
    project.manage("sync_cloudrun_schedules", "--command", RECONCILE_COMMAND)
    project.set(RECONCILE={})

    found = [(each["id"], each["job"]) for each in project.doctor(commands=[]).findings]

    assert ("reconcile_unscheduled", None) in found
    assert [job for _, job in found if job == RECONCILE_COMMAND] == []


def test_project_without_jobs(project: Project) -> None:
    """There is nothing to reconcile."""
    project.set(RECONCILE={})

    assert list(reconcile_unscheduled(facts.Facts(cloudrun_backend(), []), None)) == []


def test_missing_image_that_the_other_jobs_do_not_have(project: Project) -> None:
    """It is one finding: the job is to get the image of the others."""
    project.emulator.images.push(project.image(1))
    project.manage("sync_cloudrun_jobs", "--image", project.image(1), "--command", "walk")
    job = project.emulator._engine.store.jobs[f"{project.place}/jobs/echo-production"]
    job.template.template.containers[0].image = project.image(9)

    fix = f"manage.py sync_cloudrun_jobs --image {project.image(1)} --command echo"
    assert project.doctor().summary == [("image_missing", "echo", fix)]


def test_sidecar_that_comes_first(project: Project) -> None:
    """The job's own container is the one with this package's variables; the other one is to be removed."""
    job = project.job()
    job.template.template.containers[0].name = "job"
    job.template.template.containers.insert(0, run_v2.Container(name="proxy", image="proxy:1"))
    project.update_job(job)
    project.declare(timeout=90)
    found = project.doctor()

    assert found.ids == ["job_drift", "container_ambiguous"]
    assert "--remove-containers=proxy" in found.findings[1]["fix"]

    project.mend(found.findings[0]["fix"])

    # The sync leaves the other container alone.
    assert [each.image for each in project.job().template.template.containers] == ["proxy:1", project.image(1)]
    assert project.doctor().ids == ["container_ambiguous"]


def test_invalid_declaration_is_found_once(project: Project) -> None:
    """A declaration that neither the job nor its schedule can be planned with is one finding."""
    project.declare(nightly, timeout=-5)

    assert project.doctor().ids == ["job_undeployable"]


def test_scope_of_a_token(project: Project) -> None:
    """A token of another scope, which Cloud Run rejects, is a difference, which the message tells."""
    job = project.emulator.scheduler.entries[f"{project.place}/jobs/nightly-production"].job
    job.http_target.oauth_token.scope = "https://www.googleapis.com/auth/userinfo.email"
    (found,) = project.doctor().findings
    account = project.account("scheduler")

    assert found["message"].endswith(
        f"token: OAuth of {account} with the scope https://www.googleapis.com/auth/userinfo.email"
        f" → OAuth of {account}."
    )

    project.mend(found["fix"])

    assert project.doctor().findings == []


def test_execution_that_cannot_be_started_is_no_success(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the only error is that an execution was not started, the exit status is 2."""
    monkeypatch.setattr(execution, "_start", _fail)
    found = project.doctor("--execute")

    assert (found.output, found.status) == ("[]\n", 2)


def test_execution_has_a_time_limit(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task of the check ends after five minutes, whatever the job's own timeout is."""
    given: list[Request] = []
    monkeypatch.setattr(execution, "run_job", lambda backend, request, timeout: given.append(request))
    monkeypatch.setattr(execution, "_finding", lambda *args: ())
    project.doctor("--execute", commands=["echo"])

    assert [request.overrides.timeout for request in given] == [timedelta(minutes=5)]


class Page(BaseHTTPRequestHandler):
    """Answers every request with a page, as some proxies do."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(b"<html>Please log in.</html>")

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_proxy_that_answers_with_a_page(proxy: str) -> None:
    """An answer that is no JSON is one of a service that is unavailable."""
    with pytest.raises(ServiceUnavailable, match="answers with text/html, not with JSON"):
        RestClient(Server(proxy, "ya29.token"), timeout=5.0).call("iam", "GET", "v1/x", ANY, resource="x")


def test_no_proxy_for_a_server_on_this_machine(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy of the environment is for Google's services."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")

    assert project.rest.account() == OWNER


def test_error_shows_no_address(project: Project) -> None:
    """The message is that of the service."""
    with pytest.raises(ServiceError) as raised:
        project.owner("iam", "GET", f"v1/projects/{project.id}/serviceAccounts/{project.account('missing')}")

    assert "http://" not in str(raised.value)
    assert "Unknown service account" in str(raised.value)
