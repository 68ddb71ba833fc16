"""The list of the runs on the dashboard."""

from __future__ import annotations

import base64
import html
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from cloudrun_jobs.http.cursor import Cursor
from cloudrun_jobs.models import JobRun, Status, Trigger
from tests.dashboard.job_pages import page, text_of, url
from tests.dashboard.run_pages import record_run

NOON = datetime(2026, 1, 2, 3, tzinfo=UTC)  # At noon in Tokyo, the time zone of the tests.

RUN_ID = UUID("5f0c2d3e-8a51-4c39-9d0e-6f1b2a3c4d5e")


def listed(response: Any) -> list[UUID]:
    """Return the runs on the page."""
    return [UUID(pk) for pk in re.findall(r'<a id="run-([0-9a-f-]{36})"', response.content.decode())]


def next_page(response: Any) -> str:
    """Return the query of the link to the older runs."""
    return html.unescape(re.findall(r'id="older" href="([^"]*)"', response.content.decode())[0])


def test_runs_are_listed_newest_first(reader: Client) -> None:
    """A row has the job, the status with its reason in words, times, and who requested it."""
    now = timezone.now()
    record_run("echo", created_at=now - timedelta(hours=1))
    run = record_run(
        "nightly",
        created_at=now,
        status=Status.FAILED,
        reason="out_of_memory",
        trigger=Trigger.SCHEDULE,
        started_at=now,
        finished_at=now + timedelta(seconds=72),
    )
    response = page(reader, "runs")

    assert listed(response)[0] == run.pk
    assert f'href="{url("run", run.pk)}"' in response.content.decode()
    row = text_of(response).partition("Requested by ")[2]
    assert row.startswith("nightly failed The container exceeded its memory limit and was killed. ")
    assert "1 min 12 s schedule" in row
    assert '<div id="runs" data-live-every="10">' in response.content.decode()


def test_runs_of_another_environment_are_marked(reader: Client) -> None:
    """A row names the environment if it is not that of this process."""
    record_run("echo", environment="production")

    assert "echo production" in text_of(page(reader, "runs"))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("job=echo", {0, 1}),
        ("job=gone", {3}),
        ("job=unknown", set()),
        ("status=failed", {1}),
        ("trigger=http", {2}),
        ("job=echo&status=failed", {1}),
        ("since=2026-01-02T12:00", {2, 3}),
        ("since=2026-01-02+12:00:00", {2, 3}),
        ("until=2026-01-02T12:00", {0, 1}),
        ("since=2026-01-02&until=2026-01-03", {1, 2}),
        ("job=&status=&trigger=&since=&until=", {0, 1, 2, 3}),
        ("unknown=1", {0, 1, 2, 3}),
    ],
)
def test_filters(reader: Client, query: str, expected: set[int]) -> None:
    """Filters are look-ups; times are in the current time zone."""
    runs = [
        record_run("echo", created_at=NOON - timedelta(days=1)),
        record_run("echo", created_at=NOON - timedelta(hours=1), status=Status.FAILED),
        record_run("nightly", created_at=NOON, trigger=Trigger.HTTP),
        record_run("gone", created_at=NOON + timedelta(days=1)),
    ]

    assert {*listed(page(reader, "runs", query=f"?{query}"))} == {runs[number].pk for number in expected}


@pytest.mark.parametrize(
    "query",
    [
        "status=gone",
        "status=<script>",
        "trigger=%00",
        "job=%00",
        f"job={'x' * 151}",
        "since=yesterday",
        "since=0001-01-01",
        "until=9999-12-31T23:59",
        "since=1999-12-31",
        "since=99999999999999999999",
        "since=2026-13-45",
        "status=failed&status=%FF",
    ],
)
def test_invalid_filters_are_reported(reader: Client, query: str) -> None:
    """The page says that a filter is invalid, shows what is wrong beside it, and lists no runs."""
    record_run("echo")
    response = page(reader, "runs", query=f"?{query}")

    assert "A filter is invalid, so no runs are shown." in text_of(response)
    assert 'class="errorlist' in response.content.decode()
    assert listed(response) == []
    assert "<script>" not in response.content.decode()


def test_pages_have_every_run_once(reader: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages continue after the last run, also among runs of the same time, and keep the filters."""
    monkeypatch.setattr("cloudrun_jobs.http.cursor.PAGE", 3)
    runs = [record_run("echo", created_at=NOON - timedelta(hours=number // 4)) for number in range(8)]
    record_run("nightly", created_at=NOON)
    first = page(reader, "runs", query="?job=echo")
    second = page(reader, "runs", query=next_page(first))
    third = page(reader, "runs", query=next_page(second))
    found = [listed(each) for each in (first, second, third)]

    assert [len(each) for each in found] == [3, 3, 2]
    assert {pk for each in found for pk in each} == {run.pk for run in runs}
    assert 'id="older"' not in third.content.decode()
    assert 'id="newest" href="?job=echo"' in third.content.decode()
    assert "data-live-every" not in second.content.decode()


@pytest.mark.parametrize(
    "after",
    [
        "x",
        "é",
        "\x00",
        "a" * 5000,
        base64.urlsafe_b64encode(b"0001-01-01T00:00:00+14:00 " + RUN_ID.hex.encode()).decode().rstrip("="),
        Cursor(datetime(1, 1, 1, tzinfo=UTC), RUN_ID).encode(),
        Cursor(datetime(9999, 12, 31, tzinfo=UTC), RUN_ID).encode(),
    ],
)
def test_invalid_address_of_a_page(reader: Client, after: str) -> None:
    """An address that is no page's shows the newest runs, and says so."""
    run = record_run("echo")
    response = page(reader, "runs", query=f"?after={quote(after)}")

    assert "These are the newest runs." in text_of(response)
    assert listed(response) == [run.pk]


def test_number_of_queries_is_constant(reader: Client) -> None:
    """A page needs one query, session and user apart, whatever the number of runs; it counts none."""
    counts = []
    for number in (1, 150):
        JobRun.objects.bulk_create(
            JobRun(command=f"job{index}", environment="test", trigger="delay") for index in range(number)
        )
        with CaptureQueriesContext(connection) as queries:
            page(reader, "runs")
        own = [query["sql"] for query in queries if "cloudrun_jobs_jobrun" in query["sql"]]
        counts.append((len(queries), len(own), "COUNT(" in "".join(own)))

    assert counts[0] == counts[1]
    assert counts[0][1:] == (1, False)


def test_empty_list(reader: Client) -> None:
    """Without runs the page says whether the filters are the reason."""
    assert "No run is recorded." in text_of(page(reader, "runs"))
    assert "No run matches the filters." in text_of(page(reader, "runs", query="?job=echo"))
