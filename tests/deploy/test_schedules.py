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


def entries(emulator: Emulator) -> dict[str, scheduler_v1.Job]:
    jobs = emulator.clients.scheduler.list_jobs(parent=PLACE)
    return {job.name.rpartition("/")[2]: job for job in jobs}


def make_entry(emulator: Emulator, name: str, description: str = "") -> None:
    """Make an entry as somebody else would."""
    target = scheduler_v1.HttpTarget(uri="https://example.com/")
    job = scheduler_v1.Job(
        name=f"{PLACE}/jobs/{name}", schedule="0 0 * * *", http_target=target, description=description
    )
    emulator.clients.scheduler.create_job(parent=PLACE, job=job)


def update_entry(emulator: Emulator, job: scheduler_v1.Job, *paths: str) -> None:
    emulator.clients.scheduler.update_job(job=job, update_mask=FieldMask(paths=paths))


def as_told(entry: scheduler_v1.Job) -> Any:
    """An entry without the time of its last change, and of its last delivery."""
    message = scheduler_v1.Job.pb(scheduler_v1.Job(entry))
    message.ClearField("user_update_time")
    message.ClearField("status")
    return message


def body(entry: scheduler_v1.Job) -> Any:
    return json.loads(entry.http_target.body)


def test_an_entry_starts_the_job(sync_schedules: Sync, emulator: Emulator) -> None:
    """What is made calls jobs:run with an OAuth token, the command's name, and what tells the container why."""
    synced = sync_schedules()

    entry = entries(emulator)["nightly-production"]
    target = entry.http_target
    run = f"https://run.googleapis.com/v2/{PLACE}/jobs/nightly-production:run"
    told = {"name": "CLOUDRUN_JOBS_SCHEDULE", "value": "nightly-production|0 3 * * *|Asia/Tokyo"}
    assert synced.status == 0
    assert synced.lines[0].startswith("+ nightly  0 3 * * *  Asia/Tokyo  next ")
    assert synced.words.endswith("1 change applied.\n")
    assert (entry.schedule, entry.time_zone) == ("0 3 * * *", "Asia/Tokyo")
    assert (target.uri, target.http_method.name) == (run, "POST")
    assert dict(target.headers) == {"Content-Type": "application/json"}
    assert (target.oauth_token.service_account_email, "oidc_token" in target) == (ACCOUNT, False)
    assert body(entry) == {"overrides": {"containerOverrides": [{"args": ["nightly"], "env": [told]}]}}
    assert OwnershipLabel.read(entry.description) == OwnershipLabel(environment="production", command="nightly")


def test_a_second_run_changes_nothing(sync_schedules: Sync) -> None:
    """With nothing to change, a sync is one call."""
    sync_schedules()

    again = sync_schedules()

    assert again.calls == {"CloudScheduler.ListJobs": 1}
    assert (again.lines, again.words, again.status) == (["= 1 unchanged"], "Nothing to change.\n", 0)


def test_one_change_is_one_call(sync_schedules: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed expression is one update, told as old and new with the next time."""
    sync_schedules()
    monkeypatch.setattr(nightly.Command, "schedule", "30 4 * * *", raising=False)

    synced = sync_schedules()

    assert synced.calls == {"CloudScheduler.ListJobs": 1, "CloudScheduler.UpdateJob": 1}
    assert synced.lines[0].startswith("~ nightly  schedule: 0 3 * * * → 30 4 * * *  30 4 * * *  Asia/Tokyo  next ")
    assert entries(emulator)["nightly-production"].schedule == "30 4 * * *"
    assert "|30 4 * * *|" in str(body(entries(emulator)["nightly-production"]))


def test_what_somebody_else_set_stays(
    sync_schedules: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Headers, retries and the deadline that the code does not declare survive an update of the rest."""
    sync_schedules()
    theirs = entries(emulator)["nightly-production"]
    theirs.http_target.headers = {**theirs.http_target.headers, "X-Team": "billing"}
    theirs.retry_config.retry_count = 2
    theirs.attempt_deadline = Duration(seconds=60)
    update_entry(emulator, theirs, "http_target.headers", "retry_config.retry_count", "attempt_deadline")
    assert sync_schedules().lines == ["= 1 unchanged"]
    monkeypatch.setattr(nightly.Command, "schedule", "0 4 * * *", raising=False)

    sync_schedules()

    entry = entries(emulator)["nightly-production"]
    assert (entry.schedule, entry.retry_config.retry_count) == ("0 4 * * *", 2)
    assert entry.attempt_deadline.total_seconds() == 60
    assert dict(entry.http_target.headers) == {"Content-Type": "application/json", "X-Team": "billing"}


def test_headers_survive_one_that_was_lost(sync_schedules: Sync, emulator: Emulator) -> None:
    """The header that we need is put back beside those of others."""
    sync_schedules()
    theirs = entries(emulator)["nightly-production"]
    theirs.http_target.headers = {"X-Team": "billing"}
    update_entry(emulator, theirs, "http_target.headers")

    sync_schedules()

    headers = dict(entries(emulator)["nightly-production"].http_target.headers)
    assert headers == {"Content-Type": "application/json", "X-Team": "billing"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("time_zone", "Etc/UTC"),
        ("description", "my entry"),
        ("http_target.uri", "https://example.com/"),
        ("http_target.http_method", "PUT"),
        ("http_target.body", b"{}"),
        ("http_target.body", b'{"overrides": {"containerOverrides": [{"args": ["other"]}]}}'),
        ("http_target.oidc_token", scheduler_v1.OidcToken(service_account_email="x@acme.iam.gserviceaccount.com")),
    ],
)
def test_what_somebody_changed_by_hand_is_put_right(
    sync_schedules: Sync, emulator: Emulator, path: str, value: Any
) -> None:
    """Each declared field that differs is drift, and one update ends it."""
    sync_schedules()
    before = entries(emulator)["nightly-production"]
    theirs = scheduler_v1.Job(before)
    holder, _, name = path.rpartition(".")
    setattr(getattr(theirs, holder) if holder else theirs, name, value)
    update_entry(emulator, theirs, path)

    assert sync_schedules("--check").status == 1
    assert sync_schedules().calls["CloudScheduler.UpdateJob"] == 1
    assert as_told(entries(emulator)["nightly-production"]) == as_told(before)


def test_paused_by_hand_stays_paused(
    sync_schedules: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pause is told and left; what else differs is updated; it is not drift."""
    sync_schedules()
    emulator.clients.scheduler.pause_job(name=NIGHTLY)
    unchanged = sync_schedules("--check")
    monkeypatch.setattr(nightly.Command, "schedule", "0 4 * * *", raising=False)

    synced = sync_schedules()

    entry = entries(emulator)["nightly-production"]
    assert unchanged.status == 0
    assert unchanged.lines == ["= 1 unchanged, 1 paused by hand (nightly; left paused)"]
    assert synced.lines[0].endswith("(paused by hand; left paused)")
    assert (entry.schedule, entry.state.name) == ("0 4 * * *", "PAUSED")


def test_an_orphan_is_told_and_kept_without_prune(
    sync_schedules: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry that no command declares any more is drift, and deleted only when that is asked for."""
    sync_schedules()
    monkeypatch.setattr(nightly.Command, "schedule", None, raising=False)

    checked, kept = sync_schedules("--check"), sync_schedules()
    assert (checked.status, kept.status) == (1, 0)
    assert "- nightly-production  (no command declares it; will be deleted with --prune)" in kept.lines
    assert set(entries(emulator)) == {"nightly-production"}

    pruned = sync_schedules("--prune")
    assert "- nightly-production  (no command declares it; deleted)" in pruned.lines
    assert entries(emulator) == {}


def test_prune_deletes_only_what_is_ours(sync_schedules: Sync, emulator: Emulator) -> None:
    """Entries of others, of another environment, and waiting reservations are not even orphans."""
    make_entry(emulator, "foreign")
    make_entry(emulator, "foreign-too", "Managed by cloudrun_jobs: nonsense")
    make_entry(emulator, "x-staging", str(OwnershipLabel(environment="staging", command="x")))
    reserved = OwnershipLabel(environment="production", command="nightly", kind=RESERVATION)
    make_entry(emulator, "nightly-production-reserved-1", str(reserved))
    sync_schedules()

    synced = sync_schedules("--prune")

    assert synced.calls == {"CloudScheduler.ListJobs": 1}
    assert len(entries(emulator)) == 5


def test_an_entry_whose_update_failed_is_written_again(sync_schedules: Sync, emulator: Emulator) -> None:
    """What is left of it is not known, so that all of it is sent; it is told."""
    sync_schedules()
    emulator.scheduler.entries[NIGHTLY].job.state = scheduler_v1.Job.State.UPDATE_FAILED

    synced = sync_schedules()

    assert synced.calls["CloudScheduler.UpdateJob"] == 1
    assert "! nightly: its last update failed and is repeated" in synced.words


def test_an_entry_of_our_name_is_adopted(sync_schedules: Sync, emulator: Emulator) -> None:
    """One that was made by hand becomes what the code declares, and is marked."""
    make_entry(emulator, "nightly-production")

    sync_schedules()

    entry = entries(emulator)["nightly-production"]
    assert entry.schedule == "0 3 * * *"
    assert OwnershipLabel.read(entry.description) == OwnershipLabel(environment="production", command="nightly")
    assert sync_schedules("--check").status == 0


def test_an_entry_of_our_name_but_another_environment_is_refused(sync_schedules: Sync, emulator: Emulator) -> None:
    """Two environments whose names meet do not take each other's entries in turns."""
    make_entry(emulator, "nightly-production", str(OwnershipLabel(environment="other", command="nightly")))

    synced = sync_schedules()

    assert synced.status == 2
    assert "exists already and belongs to the environment 'other'" in synced.words
    assert synced.calls == {"CloudScheduler.ListJobs": 1}


def test_a_dry_run_and_a_check_write_nothing(sync_schedules: Sync, emulator: Emulator) -> None:
    """Both show the plan; a check ends with 1."""
    dry, checked = sync_schedules("--dry-run"), sync_schedules("--check")

    assert (dry.status, checked.status) == (0, 1)
    assert dry.lines == checked.lines
    assert dry.words == "1 change. Run it without --dry-run and --check to apply.\n"
    assert dry.calls + checked.calls == {"CloudScheduler.ListJobs": 2}
    sync_schedules()
    assert sync_schedules("--check").words == "Nothing to change.\n"


def test_json_is_for_machines(sync_schedules: Sync, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan as data, with what became of it."""
    planned, applied = sync_schedules("--dry-run", "--json").data, sync_schedules("--json").data

    change = planned["changes"][0]
    assert (change["action"], change["id"], change["name"]) == ("create", "nightly-production", "nightly")
    assert change["fields"]["args"] == {"old": None, "new": ["nightly"]}
    assert (planned["applied"], applied["applied"], applied["failures"]) == (False, True, {})
    assert sync_schedules("--json").data["unchanged"] == ["nightly"]


def test_a_list_of_schedules_has_arguments_and_zones(
    sync_schedules: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the list is an entry of its own, by its name or its number."""
    schedules = [
        "* * * * *",
        Schedule("0 12 * * SAT", time_zone="Asia/Seoul", args={"partner": 8, "note": "-x"}, name="weekend"),
    ]
    monkeypatch.setattr(echo.Command, "schedule", schedules, raising=False)

    sync_schedules("--command", "echo")

    found = entries(emulator)
    override = body(found["echo-production-weekend"])["overrides"]["containerOverrides"][0]
    assert set(found) == {"echo-production-1", "echo-production-weekend"}
    assert found["echo-production-weekend"].time_zone == "Asia/Seoul"
    assert override["args"] == ["echo", "--partner=8", "--note=-x"]
    assert override["env"][0]["value"] == "echo-production-weekend|0 12 * * SAT|Asia/Seoul"


def test_retries_and_deadline_are_written_when_declared(
    sync_schedules: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are the service's own again when the code no longer declares them."""
    with monkeypatch.context() as declared:
        retries = {"retry_count": 3, "min_backoff_duration": 9}
        declared.setattr(nightly.Command, "retry_config", retries, raising=False)
        declared.setattr(nightly.Command, "attempt_deadline", 30, raising=False)
        sync_schedules()
        entry = entries(emulator)["nightly-production"]
        assert (entry.retry_config.retry_count, entry.retry_config.min_backoff_duration.seconds) == (3, 9)
        assert entry.attempt_deadline.seconds == 30
        assert sync_schedules().calls == {"CloudScheduler.ListJobs": 1}

    sync_schedules()

    entry = entries(emulator)["nightly-production"]
    assert (entry.retry_config.retry_count, entry.retry_config.min_backoff_duration.seconds) == (0, 5)
    assert entry.attempt_deadline.seconds == 180
    assert sync_schedules().calls == {"CloudScheduler.ListJobs": 1}


def test_a_command_may_run_in_the_web_service(
    sync_schedules: Sync, emulator: Emulator, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its entry calls the service with an OIDC token for it, and back again when it is a job again."""
    sync_schedules()
    options["service_url"] = "https://web-abc.a.run.app/"
    with monkeypatch.context() as declared:
        declared.setattr(nightly.Command, "target", "service", raising=False)
        sync_schedules()
        target = entries(emulator)["nightly-production"].http_target
        assert target.uri == "https://web-abc.a.run.app/cloudrun_jobs/run/nightly/"
        assert target.oidc_token.audience == "https://web-abc.a.run.app"
        assert (target.oidc_token.service_account_email, "oauth_token" in target) == (ACCOUNT, False)
        assert json.loads(target.body) == {
            "args": ["nightly"],
            "schedule": "nightly-production|0 3 * * *|Asia/Tokyo",
        }

    sync_schedules()

    entry = entries(emulator)["nightly-production"]
    assert "overrides" in body(entry)
    assert entry.http_target.oauth_token.service_account_email == ACCOUNT
    assert sync_schedules("--check").status == 0


def test_only_named_commands_are_looked_at(
    sync_schedules: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --command, other jobs and the orphans of others are left alone."""
    make_entry(emulator, "gone-production", str(OwnershipLabel(environment="production", command="gone")))
    make_entry(emulator, "echo-production-3", str(OwnershipLabel(environment="production", command="echo")))
    monkeypatch.setattr(echo.Command, "schedule", "* * * * *", raising=False)

    sync_schedules("--command", "echo", "--prune")

    assert set(entries(emulator)) == {"gone-production", "echo-production"}


def test_a_command_that_is_no_job_is_refused(sync_schedules: Sync) -> None:
    """The error names the nearest."""
    synced = sync_schedules("--command", "nightli")

    assert (synced.words, synced.status) == ("'nightli' is not a Cloud Run job. Did you mean 'nightly'?", 2)


def test_a_command_that_cannot_be_imported_stops_the_sync(sync_schedules: Sync, settings: Settings) -> None:
    """Its name is told, and nothing is asked of the cloud; without it, all its entries would be orphans."""
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "tests.invalid_commands"]
    get_commands.cache_clear()

    synced = sync_schedules("--prune")

    assert synced.words == "broken: cannot be imported, so nothing was changed. RuntimeError: no library for this"
    assert (synced.status, synced.calls) == (2, {})


def test_arguments_that_the_command_refuses_stop_the_sync(
    sync_schedules: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown option, or a missing one, is told before anything is asked of the cloud."""
    monkeypatch.setattr(everything.Command, "schedule", "0 0 * * *", raising=False)
    missing = sync("sync_cloudrun_schedules", emulator, skip_checks=False)
    monkeypatch.setattr(everything.Command, "schedule", [Schedule("0 0 * * *", args={"sorce": "x"})])
    unknown = sync_schedules()

    assert "the following arguments are required: source" in missing.words
    assert "everything: Unknown option 'sorce'. Did you mean 'source'?" in unknown.words
    assert (missing.status, unknown.status) == (2, 2)
    assert missing.calls + unknown.calls == {}


def test_two_entries_of_one_name_are_refused(
    sync_schedules: Sync, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written when two schedules would overwrite each other in turns."""
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "tests.invalid_commands"]
    get_commands.cache_clear()

    synced = sync_schedules("--command", "twin_job", "twin-job")

    assert "twin-job and twin_job would both be 'twin-job-production'" in synced.words
    assert synced.status == 2


def test_a_shortened_name_is_said(sync_schedules: Sync, settings: Settings, emulator: Emulator) -> None:
    """Beyond Cloud Run's limit the name ends in a hash; the plan shows it."""
    environment = "e" * 60
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "ENVIRONMENT": environment}

    synced = sync_schedules()

    name = next(iter(entries(emulator)))
    assert len(name) == 63
    assert synced.lines[0].endswith(f"(named {name}: shortened to 63 characters)")


@pytest.mark.parametrize(
    ("method", "permission"),
    [("ListJobs", "cloudscheduler.jobs.list"), ("CreateJob", "cloudscheduler.jobs.create")],
)
def test_a_denied_permission_is_named(
    sync_schedules: Sync, emulator: Emulator, method: str, permission: str
) -> None:
    """The error says which permission is wanting, and which role has it."""
    emulator.faults.fail(f"CloudScheduler.{method}", "PERMISSION_DENIED", "The caller lacks it.")

    synced = sync_schedules()

    assert synced.status == 2
    assert f"permission denied. The caller lacks it. Grant {permission} (roles/cloudscheduler." in synced.words


def test_a_service_that_is_not_enabled_is_said(sync_schedules: Sync, emulator: Emulator) -> None:
    """Google answers as to a denied permission; granting one would not help."""
    said = "Cloud Scheduler API has not been used in project 7 before or it is disabled."
    emulator.faults.fail("CloudScheduler.ListJobs", "PERMISSION_DENIED", said)

    assert "Enable it with `gcloud services enable`." in sync_schedules().words


@pytest.mark.parametrize("code", ["NOT_FOUND", "INVALID_ARGUMENT"])
def test_a_region_without_cloud_scheduler_is_said(sync_schedules: Sync, emulator: Emulator, code: str) -> None:
    """The error names the region, and the option that names another."""
    emulator.faults.fail("CloudScheduler.ListJobs", code, "Location is not valid.")

    synced = sync_schedules()

    assert f"projects/acme/locations/{REGION}: refused. Location is not valid." in synced.words
    assert "OPTIONS']['scheduler_region']" in synced.words
    assert synced.status == 2


def test_entries_may_be_in_another_region(
    sync_schedules: Sync, emulator: Emulator, options: dict[str, Any]
) -> None:
    """Where Cloud Scheduler does not serve the jobs' region, the entries start them from elsewhere."""
    options["scheduler_region"] = "europe-west1"

    sync_schedules()

    entry = next(iter(emulator.clients.scheduler.list_jobs(parent="projects/acme/locations/europe-west1")))
    assert f"/locations/{REGION}/jobs/nightly-production:run" in entry.http_target.uri


def test_an_exhausted_quota_is_waited_for(sync_schedules: Sync, emulator: Emulator) -> None:
    """A refusal for want of quota did nothing, so the write is tried again."""
    emulator.faults.exhaust("CloudScheduler.CreateJob")

    synced = sync_schedules()

    assert (synced.status, synced.calls["CloudScheduler.CreateJob"]) == (0, 2)
    assert set(entries(emulator)) == {"nightly-production"}


@pytest.mark.parametrize(
    ("method", "code", "words"),
    [
        ("UpdateJob", "NOT_FOUND", "It was deleted since the Scheduler jobs were listed;"),
        (
            "CreateJob",
            "ALREADY_EXISTS",
            "It was created since the Scheduler jobs were listed;",
        ),
    ],
)
def test_an_entry_that_changed_meanwhile_is_said(
    sync_schedules: Sync,
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    code: str,
    words: str,
) -> None:
    """What somebody did between the list and the write is told, and a second run finishes."""
    sync_schedules()
    monkeypatch.setattr(nightly.Command, "schedule", "0 4 * * *", raising=False)
    monkeypatch.setattr(echo.Command, "schedule", "0 4 * * *", raising=False)
    emulator.faults.fail(f"CloudScheduler.{method}", code, "Job.")

    synced = sync_schedules()

    assert synced.status == 2
    assert words in synced.words
    assert sync_schedules().status == 0
    assert sync_schedules("--check").status == 0


def test_deleting_what_is_gone_is_no_failure(
    sync_schedules: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wish is fulfilled; a remark says that somebody was quicker."""
    sync_schedules()
    monkeypatch.setattr(nightly.Command, "schedule", None, raising=False)
    emulator.faults.fail("CloudScheduler.DeleteJob", "NOT_FOUND", "Job not found.")

    synced = sync_schedules("--prune")

    assert synced.status == 0
    assert synced.lines[0].endswith("(already deleted)")


def test_a_failure_does_not_stop_the_others(
    sync_schedules: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest is applied, the status is 2, and a second run does what is left."""
    for command in (echo.Command, nightly.Command):
        monkeypatch.setattr(command, "schedule", ["0 0 * * *"] * 5, raising=False)
    emulator.faults.fail("CloudScheduler.CreateJob", "INTERNAL", "Oops.")

    synced = sync_schedules()
    assert synced.status == 2
    assert synced.words.endswith("1 of 10 changes failed. The others were applied; run it again to retry.")
    assert len(entries(emulator)) == 9

    assert sync_schedules().calls["CloudScheduler.CreateJob"] == 1
    assert len(entries(emulator)) == 10


def test_failures_are_in_the_json(sync_schedules: Sync, emulator: Emulator) -> None:
    """Machines learn what failed, too."""
    emulator.faults.fail("CloudScheduler.CreateJob", "INTERNAL", "Oops.")

    synced = sync_schedules("--json")

    assert synced.status == 2
    assert "Oops." in synced.data["failures"]["nightly"]


def test_a_list_is_one_call_for_each_500(sync_schedules: Sync, emulator: Emulator) -> None:
    """Entries beyond the first page are seen."""
    for number in range(501):
        make_entry(emulator, f"e{number}", str(OwnershipLabel(environment="production", command="gone")))

    synced = sync_schedules("--dry-run")

    assert synced.calls == {"CloudScheduler.ListJobs": 2}
    assert len([line for line in synced.lines if line.startswith("- e")]) == 501


def test_a_terminal_shows_a_bar(sync_schedules: Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many changes are counted on a terminal, and only there."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(echo.Command, "schedule", ["0 0 * * *"] * 20, raising=False)

    watched = sync("sync_cloudrun_schedules", emulator, stderr=Terminal())
    monkeypatch.setattr(echo.Command, "schedule", ["0 1 * * *"] * 20, raising=False)

    assert "[########################] 100%  21 of 21" in watched.words
    assert "of 20" not in sync_schedules().words


@pytest.mark.usefixtures("_only_these_jobs")
def test_a_local_environment_has_nothing_to_sync(emulator: Emulator) -> None:
    """The error says which environment it is and how to name another."""
    synced = sync("sync_cloudrun_schedules", emulator)

    assert synced.status == 2
    assert "The environment 'test' has no jobs" in synced.words
    assert "CLOUDRUN_JOBS_ENVIRONMENT" in synced.words


def test_the_schedulers_account_is_asked_for(sync_schedules: Sync, options: dict[str, Any]) -> None:
    """Without any service account there is no token; the error names the option."""
    del options["scheduler_service_account"]
    nobody = sync_schedules()
    options["service_account"] = "jobs@acme.iam.gserviceaccount.com"

    assert "OPTIONS']['scheduler_service_account']" in nobody.words
    assert sync_schedules("--dry-run").status == 0


def test_the_services_url_is_asked_for(sync_schedules: Sync, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command of the web service cannot be reached without it."""
    monkeypatch.setattr(nightly.Command, "target", "service", raising=False)

    assert "OPTIONS']['service_url']" in sync_schedules().words


MANAGE = Path(__file__).parents[1] / "manage.py"


def manage(emulator: Emulator, **variables: str) -> int:
    """Run `manage.py sync_cloudrun_schedules --check` as CI does, and return its exit status."""
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


def test_the_exit_status_is_that_of_the_process(emulator: Emulator) -> None:
    """1 is drift and nothing else: a project that fails its system checks ends with 2."""
    drift = manage(emulator)
    faulty = manage(emulator, CLOUDRUN_JOBS_DEFAULTS=json.dumps({"timeout": 0}))

    assert (drift, faulty) == (1, 2)


def test_no_answer_is_said(sync_schedules: Sync, options: dict[str, Any]) -> None:
    """Where nothing listens, the error names the place."""
    options.update(endpoint="127.0.0.1:1", rpc_timeout=1)

    synced = sync_schedules()

    assert synced.status == 2
    assert "Is a server running at 127.0.0.1:1?" in synced.words
