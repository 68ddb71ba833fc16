"""`sync_cloudrun_schedules` against the emulator, by Google's own client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import get_commands
from google.cloud import scheduler_v1
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from pytest_django import Settings

from cloudrun_jobs import Schedule
from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.spec.ownership import RESERVATION, OwnershipLabel
from tests.deploy.commands import ACCOUNT, PLACE, REGION, Sync, Terminal, sync
from tests.jobs.management.commands import echo, everything, nightly

NIGHTLY = f"{PLACE}/jobs/nightly-production"


def scheduler_jobs(emulator: Emulator) -> dict[str, scheduler_v1.Job]:
    jobs = emulator.clients.scheduler.list_jobs(parent=PLACE)
    return {job.name.rpartition("/")[2]: job for job in jobs}


def create(emulator: Emulator, name: str, description: str = "") -> None:
    """Create a Scheduler job by hand."""
    target = scheduler_v1.HttpTarget(uri="https://example.com/")
    job = scheduler_v1.Job(
        name=f"{PLACE}/jobs/{name}", schedule="0 0 * * *", http_target=target, description=description
    )
    emulator.clients.scheduler.create_job(parent=PLACE, job=job)


def update_scheduler_job(emulator: Emulator, job: scheduler_v1.Job, *paths: str) -> None:
    emulator.clients.scheduler.update_job(job=job, update_mask=FieldMask(paths=paths))


def without_times(job: scheduler_v1.Job) -> Any:
    """Return a Scheduler job without the times of its last change and its last delivery."""
    message = scheduler_v1.Job.pb(scheduler_v1.Job(job))
    message.ClearField("user_update_time")
    message.ClearField("status")
    return message


def body(job: scheduler_v1.Job) -> Any:
    return json.loads(job.http_target.body)


def test_scheduler_job_starts_the_job(sync_schedules: Sync, emulator: Emulator) -> None:
    """It calls jobs:run with an OAuth token, the command's name, and the tick in a variable."""
    synced = sync_schedules()

    job = scheduler_jobs(emulator)["nightly-production"]
    target = job.http_target
    run = f"https://run.googleapis.com/v2/{PLACE}/jobs/nightly-production:run"
    variable = {"name": "CLOUDRUN_JOBS_SCHEDULE", "value": "nightly-production|0 3 * * *|Asia/Tokyo"}
    assert synced.status == 0
    assert synced.lines[0].startswith("+ nightly  0 3 * * *  Asia/Tokyo  next ")
    assert synced.messages.endswith("1 change applied.\n")
    assert (job.schedule, job.time_zone) == ("0 3 * * *", "Asia/Tokyo")
    assert (target.uri, target.http_method.name) == (run, "POST")
    assert dict(target.headers) == {"Content-Type": "application/json"}
    assert (target.oauth_token.service_account_email, "oidc_token" in target) == (ACCOUNT, False)
    assert body(job) == {"overrides": {"containerOverrides": [{"args": ["nightly"], "env": [variable]}]}}
    assert OwnershipLabel.read(job.description) == OwnershipLabel(environment="production", command="nightly")


def test_second_sync_changes_nothing(sync_schedules: Sync) -> None:
    """A sync without changes is one call."""
    sync_schedules()

    again = sync_schedules()

    assert again.calls == {"CloudScheduler.ListJobs": 1}
    assert (again.lines, again.messages, again.status) == (["= 1 unchanged"], "Nothing to change.\n", 0)


def test_changed_schedule_is_one_update(
    sync_schedules: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan shows the old and the new expression, and the next time."""
    sync_schedules()
    monkeypatch.setattr(nightly.Command, "schedule", "30 4 * * *", raising=False)

    synced = sync_schedules()

    assert synced.calls == {"CloudScheduler.ListJobs": 1, "CloudScheduler.UpdateJob": 1}
    assert synced.lines[0].startswith("~ nightly  schedule: 0 3 * * * → 30 4 * * *  30 4 * * *  Asia/Tokyo  next ")
    assert scheduler_jobs(emulator)["nightly-production"].schedule == "30 4 * * *"
    assert "|30 4 * * *|" in str(body(scheduler_jobs(emulator)["nightly-production"]))


def test_undeclared_fields_stay(sync_schedules: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers, retries and the deadline stay if the code does not declare them."""
    sync_schedules()
    edited = scheduler_jobs(emulator)["nightly-production"]
    edited.http_target.headers = {**edited.http_target.headers, "X-Team": "billing"}
    edited.retry_config.retry_count = 2
    edited.attempt_deadline = Duration(seconds=60)
    update_scheduler_job(emulator, edited, "http_target.headers", "retry_config.retry_count", "attempt_deadline")
    assert sync_schedules().lines == ["= 1 unchanged"]
    monkeypatch.setattr(nightly.Command, "schedule", "0 4 * * *", raising=False)

    sync_schedules()

    job = scheduler_jobs(emulator)["nightly-production"]
    assert (job.schedule, job.retry_config.retry_count) == ("0 4 * * *", 2)
    assert job.attempt_deadline.total_seconds() == 60
    assert dict(job.http_target.headers) == {"Content-Type": "application/json", "X-Team": "billing"}


def test_lost_header_is_added_to_the_others(sync_schedules: Sync, emulator: Emulator) -> None:
    """A missing Content-Type is restored; other headers stay."""
    sync_schedules()
    edited = scheduler_jobs(emulator)["nightly-production"]
    edited.http_target.headers = {"X-Team": "billing"}
    update_scheduler_job(emulator, edited, "http_target.headers")

    sync_schedules()

    headers = dict(scheduler_jobs(emulator)["nightly-production"].http_target.headers)
    assert headers == {"Content-Type": "application/json", "X-Team": "billing"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("time_zone", "Etc/UTC"),
        ("description", "my job"),
        ("http_target.uri", "https://example.com/"),
        ("http_target.http_method", "PUT"),
        ("http_target.body", b"{}"),
        ("http_target.body", b'{"overrides": {"containerOverrides": [{"args": ["other"]}]}}'),
        ("http_target.oidc_token", scheduler_v1.OidcToken(service_account_email="x@acme.iam.gserviceaccount.com")),
    ],
)
def test_manual_changes_are_reverted(sync_schedules: Sync, emulator: Emulator, path: str, value: Any) -> None:
    """Each declared field that differs is drift, which one update ends."""
    sync_schedules()
    before = scheduler_jobs(emulator)["nightly-production"]
    edited = scheduler_v1.Job(before)
    holder, _, name = path.rpartition(".")
    setattr(getattr(edited, holder) if holder else edited, name, value)
    update_scheduler_job(emulator, edited, path)

    assert sync_schedules("--check").status == 1
    assert sync_schedules().calls["CloudScheduler.UpdateJob"] == 1
    assert without_times(scheduler_jobs(emulator)["nightly-production"]) == without_times(before)


def test_paused_by_hand_stays_paused(
    sync_schedules: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pause is reported and stays; other changes are applied; it is not drift."""
    sync_schedules()
    emulator.clients.scheduler.pause_job(name=NIGHTLY)
    unchanged = sync_schedules("--check")
    monkeypatch.setattr(nightly.Command, "schedule", "0 4 * * *", raising=False)

    synced = sync_schedules()

    job = scheduler_jobs(emulator)["nightly-production"]
    assert unchanged.status == 0
    assert unchanged.lines == ["= 1 unchanged, 1 paused by hand (nightly; left paused)"]
    assert synced.lines[0].endswith("(paused by hand; left paused)")
    assert (job.schedule, job.state.name) == ("0 4 * * *", "PAUSED")


def test_orphan_is_kept_without_prune(
    sync_schedules: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Scheduler job that no command declares is drift, and is deleted only with --prune."""
    sync_schedules()
    monkeypatch.setattr(nightly.Command, "schedule", None, raising=False)

    checked, kept = sync_schedules("--check"), sync_schedules()
    assert (checked.status, kept.status) == (1, 0)
    assert "- nightly-production  (no command declares it; will be deleted with --prune)" in kept.lines
    assert set(scheduler_jobs(emulator)) == {"nightly-production"}

    pruned = sync_schedules("--prune")
    assert "- nightly-production  (no command declares it; deleted)" in pruned.lines
    assert scheduler_jobs(emulator) == {}


def test_prune_deletes_only_owned_scheduler_jobs(sync_schedules: Sync, emulator: Emulator) -> None:
    """Scheduler jobs without a label or of another environment, and reservations, are not orphans."""
    create(emulator, "foreign")
    create(emulator, "foreign-too", "Managed by cloudrun_jobs: nonsense")
    create(emulator, "x-staging", str(OwnershipLabel(environment="staging", command="x")))
    reserved = OwnershipLabel(environment="production", command="nightly", kind=RESERVATION)
    create(emulator, "nightly-production-reserved-1", str(reserved))
    sync_schedules()

    synced = sync_schedules("--prune")

    assert synced.calls == {"CloudScheduler.ListJobs": 1}
    assert len(scheduler_jobs(emulator)) == 5


def test_failed_update_is_repeated(sync_schedules: Sync, emulator: Emulator) -> None:
    """Its fields are unknown, so that all are written, with a warning."""
    sync_schedules()
    emulator.scheduler.entries[NIGHTLY].job.state = scheduler_v1.Job.State.UPDATE_FAILED

    synced = sync_schedules()

    assert synced.calls["CloudScheduler.UpdateJob"] == 1
    assert "! nightly: its last update failed and is repeated" in synced.messages


def test_unowned_scheduler_job_is_adopted(sync_schedules: Sync, emulator: Emulator) -> None:
    """One that was created by hand gets the declared fields and the ownership label."""
    create(emulator, "nightly-production")

    sync_schedules()

    job = scheduler_jobs(emulator)["nightly-production"]
    assert job.schedule == "0 3 * * *"
    assert OwnershipLabel.read(job.description) == OwnershipLabel(environment="production", command="nightly")
    assert sync_schedules("--check").status == 0


def test_scheduler_job_of_another_environment_is_rejected(sync_schedules: Sync, emulator: Emulator) -> None:
    """Two environments with the same resource name do not overwrite each other's Scheduler jobs."""
    create(emulator, "nightly-production", str(OwnershipLabel(environment="other", command="nightly")))

    synced = sync_schedules()

    assert synced.status == 2
    assert "exists already and belongs to the environment 'other'" in synced.messages
    assert synced.calls == {"CloudScheduler.ListJobs": 1}


def test_dry_run_and_check_write_nothing(sync_schedules: Sync, emulator: Emulator) -> None:
    """Both show the plan; --check exits with 1."""
    dry, checked = sync_schedules("--dry-run"), sync_schedules("--check")

    assert (dry.status, checked.status) == (0, 1)
    assert dry.lines == checked.lines
    assert dry.messages == "1 change. Run it without --dry-run and --check to apply.\n"
    assert dry.calls + checked.calls == {"CloudScheduler.ListJobs": 2}
    sync_schedules()
    assert sync_schedules("--check").messages == "Nothing to change.\n"


def test_json_contains_plan_and_result(sync_schedules: Sync, monkeypatch: pytest.MonkeyPatch) -> None:
    """The JSON contains the changes, and whether they were applied."""
    planned, applied = sync_schedules("--dry-run", "--json").data, sync_schedules("--json").data

    change = planned["changes"][0]
    assert (change["action"], change["id"], change["name"]) == ("create", "nightly-production", "nightly")
    assert change["fields"]["args"] == {"old": None, "new": ["nightly"]}
    assert (planned["applied"], applied["applied"], applied["failures"]) == (False, True, {})
    assert sync_schedules("--json").data["unchanged"] == ["nightly"]


def test_list_of_schedules(sync_schedules: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each schedule of a list is a Scheduler job with its name or its number."""
    schedules = [
        "* * * * *",
        Schedule("0 12 * * SAT", time_zone="Asia/Seoul", args={"partner": 8, "note": "-x"}, name="weekend"),
    ]
    monkeypatch.setattr(echo.Command, "schedule", schedules, raising=False)

    sync_schedules("--command", "echo")

    found = scheduler_jobs(emulator)
    override = body(found["echo-production-weekend"])["overrides"]["containerOverrides"][0]
    assert set(found) == {"echo-production-1", "echo-production-weekend"}
    assert found["echo-production-weekend"].time_zone == "Asia/Seoul"
    assert override["args"] == ["echo", "--partner=8", "--note=-x"]
    assert override["env"][0]["value"] == "echo-production-weekend|0 12 * * SAT|Asia/Seoul"


def test_retries_and_deadline_are_written_if_declared(
    sync_schedules: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They return to the service's defaults when the code no longer declares them."""
    with monkeypatch.context() as declared:
        retries = {"retry_count": 3, "min_backoff_duration": 9}
        declared.setattr(nightly.Command, "retry_config", retries, raising=False)
        declared.setattr(nightly.Command, "attempt_deadline", 30, raising=False)
        sync_schedules()
        job = scheduler_jobs(emulator)["nightly-production"]
        assert (job.retry_config.retry_count, job.retry_config.min_backoff_duration.seconds) == (3, 9)
        assert job.attempt_deadline.seconds == 30
        assert sync_schedules().calls == {"CloudScheduler.ListJobs": 1}

    sync_schedules()

    job = scheduler_jobs(emulator)["nightly-production"]
    assert (job.retry_config.retry_count, job.retry_config.min_backoff_duration.seconds) == (0, 5)
    assert job.attempt_deadline.seconds == 180
    assert sync_schedules().calls == {"CloudScheduler.ListJobs": 1}


def test_target_service(
    sync_schedules: Sync, emulator: Emulator, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Scheduler job calls the web service with an OIDC token, until the target is a job again."""
    sync_schedules()
    options["service_url"] = "https://web-abc.a.run.app/"
    with monkeypatch.context() as declared:
        declared.setattr(nightly.Command, "target", "service", raising=False)
        sync_schedules()
        target = scheduler_jobs(emulator)["nightly-production"].http_target
        assert target.uri == "https://web-abc.a.run.app/cloudrun_jobs/run/nightly/"
        assert target.oidc_token.audience == "https://web-abc.a.run.app"
        assert (target.oidc_token.service_account_email, "oauth_token" in target) == (ACCOUNT, False)
        assert json.loads(target.body) == {
            "args": ["nightly"],
            "schedule": "nightly-production|0 3 * * *|Asia/Tokyo",
        }

    sync_schedules()

    job = scheduler_jobs(emulator)["nightly-production"]
    assert "overrides" in body(job)
    assert job.http_target.oauth_token.service_account_email == ACCOUNT
    assert sync_schedules("--check").status == 0


def test_command_option_limits_the_sync(
    sync_schedules: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --command, other jobs and their orphans stay."""
    create(emulator, "gone-production", str(OwnershipLabel(environment="production", command="gone")))
    create(emulator, "echo-production-3", str(OwnershipLabel(environment="production", command="echo")))
    monkeypatch.setattr(echo.Command, "schedule", "* * * * *", raising=False)

    sync_schedules("--command", "echo", "--prune")

    assert set(scheduler_jobs(emulator)) == {"gone-production", "echo-production"}


def test_unknown_command_is_rejected(sync_schedules: Sync) -> None:
    """The error suggests the most similar name."""
    synced = sync_schedules("--command", "nightli")

    assert (synced.messages, synced.status) == ("'nightli' is not a Cloud Run job. Did you mean 'nightly'?", 2)


def test_import_error_stops_the_sync(sync_schedules: Sync, settings: Settings) -> None:
    """The error names the command, and no call is made: its Scheduler jobs would be orphans."""
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "tests.invalid_commands"]
    get_commands.cache_clear()

    synced = sync_schedules("--prune")

    assert (
        synced.messages == "broken: cannot be imported, so nothing was changed. RuntimeError: no library for this"
    )
    assert (synced.status, synced.calls) == (2, {})


def test_invalid_arguments_stop_the_sync(
    sync_schedules: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown or missing option is an error, and no call is made."""
    monkeypatch.setattr(everything.Command, "schedule", "0 0 * * *", raising=False)
    missing = sync("sync_cloudrun_schedules", emulator, skip_checks=False)
    monkeypatch.setattr(everything.Command, "schedule", [Schedule("0 0 * * *", args={"sorce": "x"})])
    unknown = sync_schedules()

    assert "the following arguments are required: source" in missing.messages
    assert "everything: Unknown option 'sorce'. Did you mean 'source'?" in unknown.messages
    assert (missing.status, unknown.status) == (2, 2)
    assert missing.calls + unknown.calls == {}


def test_duplicate_names_are_rejected(
    sync_schedules: Sync, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written if two schedules would overwrite each other."""
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "tests.invalid_commands"]
    get_commands.cache_clear()

    synced = sync_schedules("--command", "same_name", "same-name")

    assert "same-name and same_name would both be 'same-name-production'" in synced.messages
    assert synced.status == 2


def test_shortened_name_is_shown(sync_schedules: Sync, settings: Settings, emulator: Emulator) -> None:
    """A name beyond Cloud Run's limit ends in a hash, which the plan shows."""
    environment = "e" * 60
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "ENVIRONMENT": environment}

    synced = sync_schedules()

    name = next(iter(scheduler_jobs(emulator)))
    assert len(name) == 63
    assert synced.lines[0].endswith(f"(named {name}: shortened to 63 characters)")


@pytest.mark.parametrize(
    ("method", "permission"),
    [("ListJobs", "cloudscheduler.jobs.list"), ("CreateJob", "cloudscheduler.jobs.create")],
)
def test_missing_permission_is_named(
    sync_schedules: Sync, emulator: Emulator, method: str, permission: str
) -> None:
    """The error names the missing permission and a role that has it."""
    emulator.faults.fail(f"CloudScheduler.{method}", "PERMISSION_DENIED", "The caller lacks it.")

    synced = sync_schedules()

    assert synced.status == 2
    assert f"permission denied. The caller lacks it. Grant {permission} (roles/cloudscheduler." in synced.messages


def test_disabled_api_is_reported(sync_schedules: Sync, emulator: Emulator) -> None:
    """Google's error is PERMISSION_DENIED, but the hint is to enable the API."""
    message = "Cloud Scheduler API has not been used in project 7 before or it is disabled."
    emulator.faults.fail("CloudScheduler.ListJobs", "PERMISSION_DENIED", message)

    assert "Enable it with `gcloud services enable`." in sync_schedules().messages


@pytest.mark.parametrize("code", ["NOT_FOUND", "INVALID_ARGUMENT"])
def test_region_without_cloud_scheduler_is_reported(sync_schedules: Sync, emulator: Emulator, code: str) -> None:
    """The error names the region, and the option for another."""
    emulator.faults.fail("CloudScheduler.ListJobs", code, "Location is not valid.")

    synced = sync_schedules()

    assert f"projects/acme/locations/{REGION}: rejected. Location is not valid." in synced.messages
    assert "OPTIONS']['scheduler_region']" in synced.messages
    assert synced.status == 2


def test_scheduler_region(sync_schedules: Sync, emulator: Emulator, options: dict[str, Any]) -> None:
    """If Cloud Scheduler does not serve the jobs' region, the Scheduler jobs are in another."""
    options["scheduler_region"] = "europe-west1"

    sync_schedules()

    job = next(iter(emulator.clients.scheduler.list_jobs(parent="projects/acme/locations/europe-west1")))
    assert f"/locations/{REGION}/jobs/nightly-production:run" in job.http_target.uri


def test_exhausted_quota_is_retried(sync_schedules: Sync, emulator: Emulator) -> None:
    """A write that failed for lack of quota is repeated."""
    emulator.faults.exhaust("CloudScheduler.CreateJob")

    synced = sync_schedules()

    assert (synced.status, synced.calls["CloudScheduler.CreateJob"]) == (0, 2)
    assert set(scheduler_jobs(emulator)) == {"nightly-production"}


@pytest.mark.parametrize(
    ("method", "code", "messages"),
    [
        ("UpdateJob", "NOT_FOUND", "It was deleted since the Scheduler jobs were listed;"),
        (
            "CreateJob",
            "ALREADY_EXISTS",
            "It was created since the Scheduler jobs were listed;",
        ),
    ],
)
def test_concurrent_change_is_reported(
    sync_schedules: Sync,
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    code: str,
    messages: str,
) -> None:
    """A change between the list and the write is an error; a second sync succeeds."""
    sync_schedules()
    monkeypatch.setattr(nightly.Command, "schedule", "0 4 * * *", raising=False)
    monkeypatch.setattr(echo.Command, "schedule", "0 4 * * *", raising=False)
    emulator.faults.fail(f"CloudScheduler.{method}", code, "Job.")

    synced = sync_schedules()

    assert synced.status == 2
    assert messages in synced.messages
    assert sync_schedules().status == 0
    assert sync_schedules("--check").status == 0


def test_deleting_a_deleted_scheduler_job_succeeds(
    sync_schedules: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan is fulfilled, with a remark."""
    sync_schedules()
    monkeypatch.setattr(nightly.Command, "schedule", None, raising=False)
    emulator.faults.fail("CloudScheduler.DeleteJob", "NOT_FOUND", "Job not found.")

    synced = sync_schedules("--prune")

    assert synced.status == 0
    assert synced.lines[0].endswith("(already deleted)")


def test_other_changes_are_applied_after_a_failure(
    sync_schedules: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit status is 2, and a second sync retries the failed change."""
    for command in (echo.Command, nightly.Command):
        monkeypatch.setattr(command, "schedule", ["0 0 * * *"] * 5, raising=False)
    emulator.faults.fail("CloudScheduler.CreateJob", "INTERNAL", "Oops.")

    synced = sync_schedules()
    assert synced.status == 2
    assert synced.messages.endswith("1 of 10 changes failed. The others were applied; run it again to retry.")
    assert len(scheduler_jobs(emulator)) == 9

    assert sync_schedules().calls["CloudScheduler.CreateJob"] == 1
    assert len(scheduler_jobs(emulator)) == 10


def test_json_contains_failures(sync_schedules: Sync, emulator: Emulator) -> None:
    """The JSON maps each failed change to its error."""
    emulator.faults.fail("CloudScheduler.CreateJob", "INTERNAL", "Oops.")

    synced = sync_schedules("--json")

    assert synced.status == 2
    assert "Oops." in synced.data["failures"]["nightly"]


def test_list_is_paginated(sync_schedules: Sync, emulator: Emulator) -> None:
    """Scheduler jobs beyond the first page are listed, with one call per 500."""
    for number in range(501):
        create(emulator, f"e{number}", str(OwnershipLabel(environment="production", command="gone")))

    synced = sync_schedules("--dry-run")

    assert synced.calls == {"CloudScheduler.ListJobs": 2}
    assert len([line for line in synced.lines if line.startswith("- e")]) == 501


def test_progress_bar_on_a_terminal(
    sync_schedules: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bar is shown for many changes, and only on a terminal."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(echo.Command, "schedule", ["0 0 * * *"] * 20, raising=False)

    watched = sync("sync_cloudrun_schedules", emulator, stderr=Terminal())
    monkeypatch.setattr(echo.Command, "schedule", ["0 1 * * *"] * 20, raising=False)

    assert "[########################] 100%  21 of 21" in watched.messages
    assert "of 20" not in sync_schedules().messages


@pytest.mark.usefixtures("_only_these_jobs")
def test_sync_is_refused_inline(emulator: Emulator) -> None:
    """The error names the environment and the setting."""
    synced = sync("sync_cloudrun_schedules", emulator)

    assert synced.status == 2
    assert "The environment 'test' has no jobs" in synced.messages
    assert "CLOUDRUN_JOBS_ENVIRONMENT" in synced.messages


def test_missing_scheduler_account_is_reported(sync_schedules: Sync, options: dict[str, Any]) -> None:
    """Without a service account there is no token; the error names the option."""
    del options["scheduler_service_account"]
    without_account = sync_schedules()
    options["service_account"] = "app-jobs@acme.iam.gserviceaccount.com"

    assert "OPTIONS']['scheduler_service_account']" in without_account.messages
    assert sync_schedules("--dry-run").status == 0


def test_missing_service_url_is_reported(sync_schedules: Sync, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that runs in the web service needs the URL; the error names the option."""
    monkeypatch.setattr(nightly.Command, "target", "service", raising=False)

    assert "OPTIONS']['service_url']" in sync_schedules().messages


MANAGE = Path(__file__).parents[1] / "manage.py"


def manage(emulator: Emulator, **variables: str) -> int:
    """Run `manage.py sync_cloudrun_schedules --check` in a process and return its exit status."""
    options = {"endpoint": emulator.grpc, "scheduler_service_account": ACCOUNT}
    environment = {
        "CLOUDRUN_JOBS_ENVIRONMENT": "production",
        "CLOUDRUN_JOBS_PROJECT": "acme",
        "CLOUDRUN_JOBS_REGION": REGION,
        "CLOUDRUN_JOBS_OPTIONS": json.dumps(options),
        **variables,
    }
    command = [sys.executable, str(MANAGE), "sync_cloudrun_schedules", "--check"]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, check=False).returncode


def test_exit_status_of_the_process(emulator: Emulator) -> None:
    """1 means drift only: if the system checks fail, it is 2."""
    drift = manage(emulator)
    faulty = manage(emulator, CLOUDRUN_JOBS_DEFAULTS=json.dumps({"timeout": 0}))

    assert (drift, faulty) == (1, 2)


def test_unreachable_endpoint_is_reported(sync_schedules: Sync, options: dict[str, Any]) -> None:
    """The error names the endpoint."""
    options.update(endpoint="127.0.0.1:1", rpc_timeout=1)

    synced = sync_schedules()

    assert synced.status == 2
    assert "No server listens at 127.0.0.1:1." in synced.messages
