"""The page of one job."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import ANY
from xml.etree import ElementTree

import pytest
from django.contrib.admin.utils import quote
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from cloudrun_jobs import Schedule
from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.locks.jobs import holders_by_job
from cloudrun_jobs.models import JobRun, Status
from tests.dashboard.conftest import Declare
from tests.dashboard.job_pages import NIGHTLY, hold, page, record, text_of, url
from tests.dashboard.test_jobs import MAX_QUERIES, synced
from tests.deploy.commands import PLACE

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def ended(command: str, status: Status, seconds: float, *, days_ago: int = 0, **values: Any) -> Any:
    start = NOON - timedelta(days=days_ago)
    times = {"created_at": start, "started_at": start, "finished_at": start + timedelta(seconds=seconds)}
    return record(command, status=status, **times, **values)


def drawing(response: Any) -> ElementTree.Element:
    """Return the first drawing of the page."""
    found = re.search(r"<svg.*?</svg>", response.content.decode(), re.DOTALL)
    assert found
    return ElementTree.fromstring(found[0])


def test_declaration_is_shown(reader: Client, declare: Declare) -> None:
    """With its help, its command line and the next three due times of each schedule."""
    two = [Schedule("0 3 * * *", time_zone="Asia/Seoul"), Schedule("every 2 hours", name="often")]
    declare(nightly={"help": "Do <all> work", "schedule": two, "timeout": 90, "max_retries": 2, "tasks": 3})
    response = page(reader, "job", "nightly")
    text = text_of(response)

    assert "Do <all> work" in text
    assert "Command line python manage.py nightly" in text
    assert "Tasks 3 Timeout per attempt 1 min 30 s Retries of a task 2" in text
    assert re.search(r"1 : Every day at 03:00 0 3 \* \* \* Asia/Seoul( \d{4}-\d\d-\d\d 03:00:00){3}", text)
    assert "often : every 2 hours Asia/Tokyo Computed by Cloud Scheduler" in text
    assert "Google Cloud console" not in text


def test_links_to_the_console(reader: Client, cloud: dict[str, Any], declare: Declare) -> None:
    """Of a job that runs on Cloud Run: its executions, and its log entries."""
    declare(nightly=NIGHTLY, remote={"target": "service"})
    content = page(reader, "job", "nightly").content.decode()

    assert "/run/jobs/details/europe-west4/nightly-production/executions?project=acme" in content
    assert "/logs/query;query=resource.type%3D%22cloud_run_job%22%0A" in content
    assert "console.cloud.google.com" not in page(reader, "job", "remote").content.decode()


def test_state_in_the_cloud(reader: Client, cloud: dict[str, Any], emulator: Emulator, declare: Declare) -> None:
    """It is shown if asked for; the page says of each schedule whether it is paused."""
    declare(nightly={"schedule": [Schedule("0 3 * * *"), Schedule("0 9 * * *", name="late")]})
    synced(emulator)
    emulator.clients.scheduler.pause_job(name=f"{PLACE}/jobs/nightly-production-late")
    emulator.calls.clear()
    declare(nightly={"schedule": [Schedule("0 4 * * *"), Schedule("0 9 * * *", name="late")]})

    assert "paused" not in text_of(page(reader, "job", "nightly"))
    assert not emulator.calls
    text = text_of(page(reader, "job", "nightly", query="?cloud=1"))
    assert re.search(r"not paused late : .* paused", text)
    assert "The Scheduler job differs: schedule" in text


def test_queries_do_not_depend_on_the_number_of_runs(reader: Client, declare: Declare) -> None:
    declare(nightly={**NIGHTLY, "parallelism": 50})
    counts = []
    for runs in (1, 40):
        for number in range(runs):
            record("nightly", execution=f"{runs}-{number}")
            hold("nightly", f"{runs}-{number}", slots=50)
        with CaptureQueriesContext(connection) as queries:
            page(reader, "job", "nightly")
        counts.append(sum("cloudrun_jobs_" in query["sql"] for query in queries))

    assert counts[0] == counts[1] <= MAX_QUERIES


def test_history_is_drawn(reader: Client, declare: Declare) -> None:
    """A bar for each run: its height is the duration, and its class and its pattern are the outcome."""
    declare(nightly=NIGHTLY)
    ended("nightly", Status.SUCCEEDED, 100, days_ago=2)
    ended("nightly", Status.FAILED, 50, days_ago=1)
    record("nightly", status=Status.SKIPPED, created_at=NOON)
    drawn = drawing(page(reader, "job", "nightly"))
    bars = [group.findall("rect") for group in drawn.findall("g")]

    assert (drawn.get("role"), drawn.get("aria-label")) == ("img", "Durations and outcomes of the last 3 runs")
    assert [bar.get("class") for bar, _ in bars] == [
        f"bar status-{each}" for each in ("skipped", "failed", "succeeded")
    ]
    assert [int(bar.get("height", "")) for bar, _ in bars] == [4, 50, 100]
    assert [int(bar.get("x", "")) for bar, _ in bars] == [591, 581, 571]
    assert bars[1][1].get("fill") == "url(#history-failed) none"
    assert [title.text for title in drawn.iter("title")][1] == (
        "failed, requested \u20682025-12-31 21:00:00\u2069, duration \u206850\xa0s\u2069"
    )
    assert {pattern.get("id") for pattern in drawn.iter("pattern")} == {
        f"history-{status}" for status in Status if status != Status.SUCCEEDED
    }


def test_history_ends_after_sixty_runs(reader: Client, declare: Declare) -> None:
    """The last ten are a table, and all sixty are another one, each with a link to the run."""
    declare(nightly=NIGHTLY)
    runs = [ended("nightly", Status.SUCCEEDED, 1, days_ago=days) for days in range(62)]
    response = page(reader, "job", "nightly")
    content = response.content.decode()

    assert len(drawing(response).findall("g")) == 60
    assert "The last 60 runs as a table" in content
    assert [content.count(url("run", run.pk)) for run in runs] == [2] * 10 + [1] * 50 + [0] * 2


@pytest.mark.parametrize("status", Status)
def test_run_of_any_status_has_a_bar(reader: Client, declare: Declare, status: Status) -> None:
    """Also one that has not started, or whose times are those of different clocks."""
    declare(nightly=NIGHTLY)
    record("nightly", status=status)
    record("nightly", status=status, started_at=timezone.now())
    record("nightly", status=status, started_at=timezone.now(), finished_at=NOON)
    response = page(reader, "job", "nightly")

    assert [group.find("rect").get("y") for group in drawing(response).findall("g")] == [ANY, ANY, "96"]  # type: ignore[union-attr]
    assert str(Status(status).label) in text_of(response)


def test_statistics(reader: Client, declare: Declare) -> None:
    """Skipped and cancelled runs do not count as failures."""
    declare(nightly=NIGHTLY)
    for seconds in range(1, 11):
        ended("nightly", Status.SUCCEEDED, seconds * 10, days_ago=seconds)
    ended("nightly", Status.LOST, 7, days_ago=20)
    record("nightly", status=Status.SKIPPED)
    text = text_of(page(reader, "job", "nightly"))

    assert "Half of the runs took at most 50 s 95% of the runs took at most 1 min 40 s" in text
    assert "Success rate 91%: 10 of 11 runs" in text


@pytest.mark.parametrize("name", ["job", "jobs"])
def test_page_of_jobs_is_polled(reader: Client, declare: Declare, name: str) -> None:
    """Every 30 seconds: each request scans the locks."""
    declare(nightly=NIGHTLY)

    assert 'data-live-every="30"' in page(reader, name, *["nightly"][: name == "job"]).content.decode()


def test_statistics_are_those_of_the_environment(reader: Client, declare: Declare) -> None:
    """As are the runs above them."""
    declare(nightly=NIGHTLY)
    ended("nightly", Status.SUCCEEDED, 5)
    for _ in range(5):
        ended("nightly", Status.FAILED, 90, environment="production")
    text = text_of(page(reader, "job", "nightly"))

    assert "95% of the runs took at most 5.0 s Success rate 100%: 1 of 1 run" in text


@pytest.mark.parametrize("site", ["cloudrun_jobs:dashboard_job", "admin:cloudrun_jobs_job_change"])
def test_status_of_a_newer_release(reader: Client, declare: Declare, site: str) -> None:
    """A status that this release does not know is shown as it is."""
    declare(nightly=NIGHTLY)
    ended("nightly", "postponed", 5)  # type: ignore[arg-type]
    response = reader.get(reverse(site, args=["nightly"]))

    assert (response.status_code, "postponed" in response.content.decode()) == (200, True)
    assert JobRun.objects.stats()["nightly"].counts == {"postponed": 1}


@pytest.mark.parametrize(("name", "arguments", "limit"), [("job", ["nightly"], 100), ("jobs", [], 3)])
def test_locks_are_limited(
    operator: Client, declare: Declare, name: str, arguments: list[str], limit: int
) -> None:
    """The page of a job shows the first 100 of its locks, the list three of each job, and the number of others."""
    declare(nightly=NIGHTLY)
    for number in range(102):
        hold("nightly", f"holder-{number}-x", slots=102)
    response = page(operator, name, *arguments)

    assert len({*re.findall(r"holder-\d+-x", response.content.decode())}) == limit
    assert f"{102 - limit} more locks are held." in text_of(response)


def test_ids_of_locks_are_unique(operator: Client, declare: Declare, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots of one lock, and locks of one job, may have the same token."""
    declare(nightly=NIGHTLY)
    for holder in ("one", "two"):
        record("nightly", execution=holder)
        hold("nightly", holder, slots=2)
    found = [replace(holder, token=7) for holder in holders_by_job(["nightly"])["nightly"]]
    found += [replace(holder, lock=f"{holder.lock}-other") for holder in found]
    monkeypatch.setattr("cloudrun_jobs.dashboard.jobs.rows.holders_by_job", lambda commands: {"nightly": found})
    ids = re.findall(r' id="([^"]+)"', page(operator, "job", "nightly").content.decode())

    assert len([name for name in ids if name.startswith(("release-", "holder-"))]) == 8
    assert sorted({*ids}) == sorted(ids)


def test_job_without_runs(reader: Client, declare: Declare) -> None:
    declare(plain={})
    text = text_of(page(reader, "job", "plain"))

    assert "The job has no schedule." in text
    assert "No lock of the job is held." in text
    assert "The job has no runs." in text


def test_invalid_job_has_its_runs(operator: Client, declare: Declare) -> None:
    declare(nightly={"schedule": "0 3 * *"})
    run = record("nightly", status=Status.FAILED)
    response = page(operator, "job", "nightly")

    assert "schedule: expected" in text_of(response)
    assert "Run now" not in text_of(response)
    assert url("run", run.pk) in response.content.decode()


GONE = "No command of this name is a job any more. Its runs are kept."
STRANGE_NAMES = [
    "gone",
    "<script>alert(1)</script>",
    "日本語 %2F",
    "../%/a",
    "..",
    "a\u202eb\x1b[31m",
    "'\"&{{ 1 }}",
    "x" * 150,
]


@pytest.mark.parametrize("command", STRANGE_NAMES)
def test_runs_of_a_command_that_is_gone(operator: Client, declare: Declare, command: str) -> None:
    """The page says so and lists them, and the holder of the lock can be removed."""
    declare()
    run = record(command, status=Status.RUNNING)
    hold(command)
    response = page(operator, "job", command)
    text = text_of(response)

    assert GONE in text
    assert "Run now" not in text
    assert "Release" in text
    assert url("run", run.pk) in response.content.decode()
    assert "<script>alert" not in response.content.decode()
    assert "\x1b" not in response.content.decode()
    assert "\u202e" not in response.content.decode()


@pytest.mark.parametrize("command", ["unknown", "a\0b", "<b>", "x" * 3000])
def test_unknown_job_is_not_found(reader: Client, declare: Declare, command: str) -> None:
    declare(nightly=NIGHTLY)

    assert reader.get(url("job", command)).status_code == 404


def test_job_of_another_environment_is_gone(reader: Client, declare: Declare) -> None:
    """Its runs are not those of this environment."""
    declare()
    run = record("nightly", environment="staging")
    response = page(reader, "job", "nightly")

    assert GONE in text_of(response)
    assert str(run.pk) not in response.content.decode()


@pytest.mark.parametrize("command", ["run_daily_ingest", *STRANGE_NAMES])
def test_job_has_a_page_in_the_admin(operator: Client, command: str) -> None:
    """At the URL that the history of the admin has for it, and whose forms lead to it again."""
    record(command)
    hold(command)
    address = reverse("admin:cloudrun_jobs_job_change", args=[quote(command)])
    content = operator.get(address).content.decode()
    action = re.search(r'action="([^"]+release-lock/)"', content)

    assert "No lock of the job is held." not in content
    assert action
    assert operator.post(html.unescape(action[1])).headers["Location"] == address


def test_link_to_all_runs(reader: Client) -> None:
    """The page leads to the list of the runs of this job."""
    record("a&b")

    assert f'href="{url("runs")}?job=a%26b"' in page(reader, "job", "a&b").content.decode()
