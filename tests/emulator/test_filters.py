"""The supported subset of the Logging query language."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs.emulator.logs.filters import MalformedFilter, compile_filter
from cloudrun_jobs.emulator.logs.store import Entry


@pytest.fixture
def entry():
    entry = Entry(log_name="projects/acme/logs/run.googleapis.com%2Fstdout", severity=400)
    entry.resource.type = "cloud_run_job"
    entry.resource.labels["job_name"] = "work"
    entry.labels["run.googleapis.com/execution_name"] = "work-abcde"
    entry.json_payload.update({"message": "It is Done", "rows": 3, "user": {"name": "ann"}, "ok": True})
    entry.timestamp.FromDatetime(datetime(2026, 3, 1, 12, tzinfo=UTC))
    return entry


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "resource.type=cloud_run_job",
        'resource.type = "cloud_run_job" AND resource.labels.job_name = "work"',
        'resource.type="cloud_run_job" resource.labels.job_name="work"',
        'resource.labels.job_name="other" OR severity>=WARNING',
        "severity>=DEFAULT",
        "severity=WARNING",
        "severity!=ERROR",
        "NOT severity>=ERROR",
        "NOT (severity=ERROR OR severity=INFO)",
        'labels."run.googleapis.com/execution_name"="work-abcde"',
        'logName="projects/acme/logs/run.googleapis.com%2Fstdout"',
        "logName:stdout",
        "jsonPayload.message:done",
        "jsonPayload.rows>2",
        "jsonPayload.rows=3",
        "jsonPayload.user.name=ann",
        "jsonPayload.ok=true",
        'jsonPayload.message=~"^It .* Done$"',
        'jsonPayload.message!~"^Done"',
        "jsonPayload.rows:*",
        'timestamp>="2026-03-01T00:00:00Z" AND timestamp<"2026-03-02T00:00:00Z"',
        "done",
        '"is done"',
        "severity>=INFO -- as seen by people\nAND done",
    ],
)
def test_filter_matches(entry, text):
    """The filter matches the entry."""
    assert compile_filter(text)(entry)


@pytest.mark.parametrize(
    "text",
    [
        "resource.type=cloud_run_revision",
        "severity>=ERROR",
        "NOT severity>=DEFAULT",
        "jsonPayload.rows>3",
        "jsonPayload.nothing=1",
        "jsonPayload.nothing:*",
        'labels."nothing"="x"',
        "textPayload:done",
        'timestamp>"2026-03-01T12:00:00Z"',
        "nowhere",
        "resource.type=cloud_run_job AND severity>=ERROR",
    ],
)
def test_filter_does_not_match(entry, text):
    """The filter does not match the entry."""
    assert not compile_filter(text)(entry)


@pytest.mark.parametrize(
    "text", ["(", "a=", "a=b)", "=x", "severity>=LOUD", "timestamp>yesterday", "severity:x", "AND", 'a=~"("']
)
def test_malformed_filter_is_rejected(text):
    """A malformed filter is rejected."""
    with pytest.raises(MalformedFilter):
        compile_filter(text)


@given(st.text(alphabet='ab.=<>!:~()"\\ \n-*1', max_size=25))
def test_any_text_is_parsed_or_rejected(text):
    """The parser accepts or rejects any text; it never fails in another way."""
    try:
        compile_filter(text)(Entry(text_payload="ab"))
    except MalformedFilter:
        return
