"""The document for Terraform equals the sync's result, resolves its references, and is valid."""

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


@pytest.mark.usefixtures("everything")
def test_document_leaves_nothing_to_sync(
    export: Export, emulator: Emulator, sync_jobs: Sync, sync_schedules: Sync
) -> None:
    """After it was applied, the sync commands find no drift, the ownership label included."""
    apply(export("terraform", *IMAGE), emulator)

    assert sync_jobs("--check").lines == ["= 1 unchanged"]
    assert sync_schedules("--check", "--command", "echo").lines == ["= 2 unchanged"]


@pytest.mark.usefixtures("everything")
def test_least_privilege(export: Export) -> None:
    """Each account gets the roles it needs, on the job or secret it needs."""
    within = resources(export("terraform", *IMAGE))
    calls = {"for_each": "${var.cloudrun_jobs_callers}", "member": "${each.value}"}

    assert evaluated(within["google_secret_manager_secret_iam_member"], within) == {
        "app-jobs_partner-key": {
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
def test_accounts_of_the_project_are_resources(export: Export) -> None:
    """Service accounts of the project become resources, so that references to them are ordered."""
    within = resources(export("terraform", *IMAGE))

    assert within["google_service_account"] == {
        "app-jobs": {"account_id": "app-jobs", "project": "acme"},
        "scheduler": {"account_id": "scheduler", "project": "acme"},
    }


def test_other_accounts_are_not_resources(
    export: Export, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An account of another project, or one that Google created, is only named."""
    other = "123456-compute@developer.gserviceaccount.com"
    options["scheduler_service_account"] = "tick@other.iam.gserviceaccount.com"
    declare(monkeypatch, schedule="0 9 * * *", service_account=other, secrets={"KEY": "1st"})
    within = resources(export("terraform", *IMAGE))

    [member] = within["google_secret_manager_secret_iam_member"].values()
    [job] = within["google_cloud_scheduler_job"].values()
    assert "google_service_account" not in within
    assert member["member"] == f"serviceAccount:{other}"
    assert job["http_target"]["oauth_token"] == {"service_account_email": options["scheduler_service_account"]}


@pytest.mark.usefixtures("everything")
def test_job_depends_on_its_secret_bindings(export: Export) -> None:
    """Cloud Run rejects a job whose account has no access to its secrets."""
    job = resources(export("terraform", *IMAGE))["google_cloud_run_v2_job"]["echo-production"]

    assert job["depends_on"] == ["google_secret_manager_secret_iam_member.app-jobs_partner-key"]


def test_target_service(export: Export, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The Scheduler job calls the service's URL with a token, and needs no role on the job."""
    options["service_url"] = "https://web.example.com"
    declare(monkeypatch, schedule="0 9 * * *", target="service")
    within = resources(export("terraform", *IMAGE))

    [job] = evaluated(within["google_cloud_scheduler_job"], within).values()
    token = {"service_account_email": ACCOUNT, "audience": "https://web.example.com"}
    assert job["http_target"]["uri"] == "https://web.example.com/cloudrun_jobs/run/echo/"
    assert job["http_target"]["oidc_token"] == token
    assert "echo-production_scheduler" not in within["google_cloud_run_v2_job_iam_member"]


@pytest.mark.usefixtures("everything")
def test_secrets_are_references(export: Export) -> None:
    """A secret is exported as its name and version."""
    job = resources(export("terraform", *IMAGE))["google_cloud_run_v2_job"]["echo-production"]
    variables = job["template"]["template"]["containers"][0]["env"]

    selector = {"secret_key_ref": {"secret": "partner-key", "version": "latest"}}
    assert [variable for variable in variables if variable["name"] == "KEY"] == [
        {"name": "KEY", "value_source": selector}
    ]


@pytest.mark.usefixtures("everything")
def test_output_is_sorted(export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    """The output is deterministic and sorted by name, so that a diff shows the changes."""
    declare(monkeypatch, schedule=[Schedule("0 9 * * *", name="late"), Schedule("0 1 * * *", name="early")])
    document = export("terraform", *IMAGE, commands=())

    kinds = [list(found) for found in resources(document).values()]
    assert document == export("terraform", *IMAGE, commands=())
    assert kinds == [sorted(names) for names in kinds]
    assert len(resources(document)["google_cloud_run_v2_job"]) > 3


@pytest.mark.usefixtures("celery")
def test_worker_pool(export: Export) -> None:
    """The Celery workers are a worker pool that reads the URLs of Redis from secrets."""
    document = export("terraform", commands=())
    within = resources(document)

    [pool] = within["google_cloud_run_v2_worker_pool"].values()
    [container] = pool["template"]["containers"]
    references = {one["name"]: one["value_source"] for one in container["env"] if "value_source" in one}
    assert (pool["name"], pool["scaling"]["scaling_mode"], container["image"]) == (
        "celery-worker-production",
        "MANUAL",
        "app:1",
    )
    assert (container["command"], container["args"]) == (
        ["celery"],
        [
            *("-A", "${var.cloudrun_jobs_celery_app}", "worker", "--loglevel=info", "--queues=ingest,backtest"),
            *("--concurrency=4", "--prefetch-multiplier=1"),
        ],
    )
    assert json.loads(document)["variable"]["cloudrun_jobs_celery_app"]["default"] == "example.celery_app.app"
    assert {name: reference["secret_key_ref"] for name, reference in references.items()} == {
        "CELERY_BROKER_URL": {"secret": "celery-broker-url", "version": "latest"},
        "CELERY_RESULT_BACKEND": {"secret": "celery-result-backend", "version": "latest"},
        "REDIS_URL": {"secret": "redis-url", "version": "latest"},
        "DATABASE_URL": {"secret": "database-url", "version": "2"},
    }


@pytest.mark.usefixtures("celery")
def test_worker_pool_is_created_after_its_secrets(export: Export) -> None:
    """The pool depends on the versions of the secrets, which hold Redis's address, and on the access to them."""
    within = resources(export("terraform", commands=()))

    [pool] = within["google_cloud_run_v2_worker_pool"].values()
    versions, members = (within[f"google_secret_manager_secret_{kind}"] for kind in ("version", "iam_member"))
    assert set(pool["depends_on"]) == {
        *(f"google_secret_manager_secret_version.{name}" for name in versions),
        *(f"google_secret_manager_secret_iam_member.{name}" for name in members if name.startswith("app-jobs_")),
    }
    assert versions["celery-broker-url"]["secret_data"] == (
        "redis://:${google_redis_instance.celery.auth_string}@${google_redis_instance.celery.host}"
        ":${google_redis_instance.celery.port}/0"
    )


@pytest.mark.usefixtures("celery")
def test_selected_commands_have_no_worker_pool(export: Export) -> None:
    """With --command, only those commands are exported."""
    assert "google_cloud_run_v2_worker_pool" not in resources(export("terraform", "--image", "app:1"))


# All combinations of three and four of Terraform's special characters.
TANGLES = ["".join(some) for length in (3, 4) for some in itertools.product("$%{x", repeat=length)]


@NEEDS_TERRAFORM
def test_terraform_does_not_evaluate_text(tmp_path: Path) -> None:
    """Text that looks like an expression is not evaluated; an `Expression` is."""
    values = [*TANGLES, Expression("${1 + 1}")]
    (tmp_path / "main.tf.json").write_text(json.dumps({"output": {"all": {"value": escaped(values)}}}))
    (tmp_path / "terraform.rc").touch()
    done = [terraform(tmp_path, *command) for command in (("init",), ("apply", "-auto-approve"))]
    output = terraform(tmp_path, "output", "-json", "all")

    assert [one.returncode for one in done] == [0, 0], done
    assert json.loads(output.stdout) == [*TANGLES, 2]


@NEEDS_TERRAFORM
@NEEDS_PROVIDER
@pytest.mark.usefixtures("everything", "celery")
def test_document_is_valid(export: Export, options: dict[str, Any], tmp_path: Path) -> None:
    """`terraform validate` accepts the suite's jobs, one of which declares everything, workers and all alerts."""
    options["service_url"] = "https://web.example.com"
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
        (('"manual_instance_count"', '"manual_instances"'), "Extraneous JSON object property"),
        ((".celery.auth_string", ".celery.password"), "Unsupported attribute"),
        (('"per_series_aligner"', '"aligner"'), "Extraneous JSON object property"),
        (('"evaluation_interval"', '"interval"'), "Extraneous JSON object property"),
        ((".uptime_check_id", ".check_id"), "Unsupported attribute"),
        (("var.cloudrun_jobs_notification", "var.cloudrun_jobs_notify"), "Reference to undeclared input variable"),
    ],
)
@pytest.mark.usefixtures("everything", "celery")
def test_validation_finds_mistakes(
    export: Export, options: dict[str, Any], tmp_path: Path, mistake: tuple[str, str], summary: str
) -> None:
    """The stand-in for Google's provider knows its arguments and references."""
    options["service_url"] = "https://web.example.com"
    install_provider(tmp_path)
    (tmp_path / "jobs.tf.json").write_text(export("terraform", *IMAGE, commands=()).replace(*mistake))
    done = terraform(tmp_path, "validate", "-json")

    assert summary in {found["summary"] for found in json.loads(done.stdout)["diagnostics"]}
