"""The document for Terraform: it says what the sync would write, its references lead somewhere, it is valid."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from cloudrun_jobs import Schedule
from cloudrun_jobs.deploy.export.terraform.expressions import Expression, escaped
from cloudrun_jobs.emulator import Emulator
from tests.deploy.commands import ACCOUNT, Sync
from tests.deploy.export.conftest import JOBS, Export, declare
from tests.deploy.export.terraform import (
    NEEDS_PROVIDER,
    NEEDS_TERRAFORM,
    apply,
    evaluated,
    install_provider,
    resources,
    terraform,
)

IMAGE = ("--image", "app:1")
EXECUTOR, VIEWER = "roles/run.jobsExecutorWithOverrides", "roles/run.viewer"
ON = {"project": "acme", "location": "europe-west4", "name": "echo-production"}
ENTRY = "echo-production-1"


@pytest.mark.usefixtures("everything")
def test_it_says_what_the_sync_would_write(
    export: Export, emulator: Emulator, sync_jobs: Sync, sync_schedules: Sync
) -> None:
    """Once it is applied, there is nothing to sync, the mark included."""
    apply(export("terraform", *IMAGE), emulator)

    assert sync_jobs("--check").lines == ["= 1 unchanged"]
    assert sync_schedules("--check", "--command", "echo").lines == ["= 2 unchanged"]


@pytest.mark.usefixtures("everything")
def test_access(export: Export) -> None:
    """Each account may do what it must, on the one job or secret that it must do it on."""
    within = resources(export("terraform", *IMAGE))
    calls = {"for_each": "${var.cloudrun_jobs_callers}", "member": "${each.value}"}

    assert evaluated(within["google_secret_manager_secret_iam_member"], within) == {
        "jobs_partner-key": {
            "project": "acme",
            "secret_id": "partner-key",
            "role": "roles/secretmanager.secretAccessor",
            "member": f"serviceAccount:{JOBS}",
        }
    }
    assert {
        name: {**binding, "name": evaluated(binding["name"], within)}
        for name, binding in within["google_cloud_run_v2_job_iam_member"].items()
    } == {
        "echo-production_callers": {**calls, **ON, "role": EXECUTOR},
        "echo-production_scheduler": {
            **ON,
            "role": EXECUTOR,
            "member": "serviceAccount:${google_service_account.scheduler.email}",
        },
        "echo-production_viewers": {**calls, **ON, "role": VIEWER},
    }


@pytest.mark.usefixtures("everything")
def test_accounts_of_the_project_are_made(export: Export) -> None:
    """Those that are named and are of the project; whoever refers to one waits for it."""
    within = resources(export("terraform", *IMAGE))

    assert within["google_service_account"] == {
        "jobs": {"account_id": "jobs", "project": "acme"},
        "scheduler": {"account_id": "scheduler", "project": "acme"},
    }


def test_accounts_of_elsewhere_are_not_made(
    export: Export, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another project's, or one that Google made, is named and no more."""
    other = "123456-compute@developer.gserviceaccount.com"
    options["scheduler_service_account"] = "tick@other.iam.gserviceaccount.com"
    declare(monkeypatch, schedule="0 9 * * *", service_account=other, secrets={"KEY": "1st"})
    within = resources(export("terraform", *IMAGE))

    [member] = within["google_secret_manager_secret_iam_member"].values()
    [entry] = within["google_cloud_scheduler_job"].values()
    assert "google_service_account" not in within
    assert member["member"] == f"serviceAccount:{other}"
    assert entry["http_target"]["oauth_token"] == {"service_account_email": options["scheduler_service_account"]}


@pytest.mark.usefixtures("everything")
def test_a_job_waits_until_it_may_read_its_secrets(export: Export) -> None:
    """Cloud Run refuses a job whose account may not."""
    job = resources(export("terraform", *IMAGE))["google_cloud_run_v2_job"]["echo-production"]

    assert job["depends_on"] == ["google_secret_manager_secret_iam_member.jobs_partner-key"]


def test_entries_of_the_web_service(
    export: Export, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They call its URL with a token for it, and nobody needs to be allowed to start the job."""
    options["service_url"] = "https://web.example.com"
    declare(monkeypatch, schedule="0 9 * * *", target="service")
    within = resources(export("terraform", *IMAGE))

    [entry] = evaluated(within["google_cloud_scheduler_job"], within).values()
    token = {"service_account_email": ACCOUNT, "audience": "https://web.example.com"}
    assert entry["http_target"]["uri"] == "https://web.example.com/cloudrun_jobs/run/echo/"
    assert entry["http_target"]["oidc_token"] == token
    assert "echo-production_scheduler" not in within["google_cloud_run_v2_job_iam_member"]


@pytest.mark.usefixtures("everything")
def test_nothing_secret_is_in_it(export: Export) -> None:
    """A secret is its name and its version."""
    job = resources(export("terraform", *IMAGE))["google_cloud_run_v2_job"]["echo-production"]
    variables = job["template"]["template"]["containers"][0]["env"]

    selector = {"secret_key_ref": {"secret": "partner-key", "version": "latest"}}
    assert [variable for variable in variables if variable["name"] == "KEY"] == [
        {"name": "KEY", "value_source": selector}
    ]


@pytest.mark.usefixtures("everything")
def test_order(export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the same each time, and what is alike is sorted by name: a diff shows what changed."""
    declare(monkeypatch, schedule=[Schedule("0 9 * * *", name="late"), Schedule("0 1 * * *", name="early")])
    document = export("terraform", *IMAGE, commands=())

    kinds = [list(found) for found in resources(document).values()]
    assert document == export("terraform", *IMAGE, commands=())
    assert kinds == [sorted(names) for names in kinds]
    assert len(resources(document)["google_cloud_run_v2_job"]) > 3


# All that three or four of Terraform's special characters can be together.
TANGLES = ["".join(some) for length in (3, 4) for some in itertools.product("$%{x", repeat=length)]


@NEEDS_TERRAFORM
def test_terraform_takes_text_as_it_is(tmp_path: Path) -> None:
    """Whatever looks like an expression of Terraform's in a value is text, and what is meant as one is not."""
    values = [*TANGLES, Expression("${1 + 1}")]
    (tmp_path / "main.tf.json").write_text(json.dumps({"output": {"all": {"value": escaped(values)}}}))
    (tmp_path / "terraform.rc").touch()
    done = [terraform(tmp_path, *command) for command in (("init",), ("apply", "-auto-approve"))]
    output = terraform(tmp_path, "output", "-json", "all")

    assert [one.returncode for one in done] == [0, 0], done
    assert json.loads(output.stdout) == [*TANGLES, 2]


@NEEDS_TERRAFORM
@NEEDS_PROVIDER
@pytest.mark.usefixtures("everything")
def test_terraform_finds_it_valid(export: Export, tmp_path: Path) -> None:
    """`terraform validate` has nothing against the suite's jobs, one of which declares everything."""
    install_provider(tmp_path)
    (tmp_path / "jobs.tf.json").write_text(export("terraform", *IMAGE, commands=()))
    done = terraform(tmp_path, "validate", "-json")

    assert json.loads(done.stdout)["error_count"] == 0, done.stdout


@NEEDS_TERRAFORM
@NEEDS_PROVIDER
@pytest.mark.parametrize(
    ("mistake", "summary"),
    [
        (('"max_retries"', '"max_retrys"'), "Extraneous JSON object property"),
        (('"image"', '"//"'), "Missing required argument"),
        ((".scheduler.email", ".schedular.email"), "Reference to undeclared resource"),
        ((".scheduler.email", ".scheduler.mail"), "Unsupported attribute"),
    ],
)
@pytest.mark.usefixtures("everything")
def test_terraform_would_find_a_mistake(
    export: Export, tmp_path: Path, mistake: tuple[str, str], summary: str
) -> None:
    """What stands in for Google's provider knows its arguments and its references."""
    install_provider(tmp_path)
    (tmp_path / "jobs.tf.json").write_text(export("terraform", *IMAGE).replace(*mistake))
    done = terraform(tmp_path, "validate", "-json")

    assert summary in {found["summary"] for found in json.loads(done.stdout)["diagnostics"]}
