"""Pages of runs, and their cursors."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs.http import query
from cloudrun_jobs.http.cursor import Cursor
from cloudrun_jobs.http.query import MAX_YEAR, MIN_YEAR
from cloudrun_jobs.models import JobRun

START = datetime(2026, 1, 1, tzinfo=UTC)


def create(count: int, *, at: int = 1, **values: Any) -> list[JobRun]:
    """Record runs, `at` of them at each time; return them, newest first."""
    given = {"command": "echo", "environment": "test", "trigger": "delay", "status": "succeeded", **values}
    times = [START + timedelta(seconds=number // at) for number in range(count)]
    made = [JobRun.objects.create(created_at=time, **given) for time in times]
    return sorted(made, key=lambda run: (run.created_at, run.pk.hex), reverse=True)


def pages(call: Callable[..., Any], query: str = "") -> list[list[str]]:
    """Follow the cursors to the last page; return the ids of each page."""
    found, cursor = [], ""
    while True:
        page = call("GET", f"jobs/?{query}{cursor}").json()
        found.append([run["id"] for run in page["runs"]])
        if page["next"] is None:
            return found
        cursor = f"&cursor={page['next']}"


@pytest.mark.parametrize("at", [1, 4, 100])
def test_each_run_is_on_one_page(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Newest first, also where several runs have the same time."""
    monkeypatch.setattr("cloudrun_jobs.http.cursor.PAGE", 5)
    made = create(17, at=at)

    found = pages(call)

    assert [len(page) for page in found] == [5, 5, 5, 2]
    assert [run for page in found for run in page] == [str(run.pk) for run in made]


def test_new_runs_do_not_shift_the_pages(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A cursor continues after the last run of its page."""
    monkeypatch.setattr("cloudrun_jobs.http.cursor.PAGE", 2)
    made = create(4)
    first = call("GET", "jobs/").json()
    JobRun.objects.create(command="echo", environment="test", trigger="delay")

    second = call("GET", f"jobs/?cursor={first['next']}").json()

    assert [run["id"] for run in second["runs"]] == [str(run.pk) for run in made[2:]]
    assert second["next"] is None


def test_filters_combine(call: Callable[..., Any]) -> None:
    """Each filter narrows the page."""
    create(3)
    create(2, command="walk", status="failed", reason="timeout", trigger="http")

    assert len(pages(call, "command=walk")[0]) == 2
    assert len(pages(call, "status=failed&reason=timeout&trigger=http")[0]) == 2
    assert pages(call, "status=failed&command=echo") == [[]]
    assert len(pages(call, "since=2026-01-01T00:00:01Z&until=2026-01-01T00:00:02Z")[0]) == 2


def test_token_of_some_commands_lists_their_runs(call: Callable[..., Any]) -> None:
    """Other runs are not in the list."""
    create(3)
    create(2, command="walk")

    found = call("GET", "jobs/", token="walk only").json()["runs"]

    assert {run["command"] for run in found} == {"walk"}


@given(st.integers(-23, 23), st.integers(0, 59))
def test_times_of_a_query_are_in_utc(hours: int, minutes: int) -> None:
    """PostgreSQL rejects the offsets of some times that RFC 3339 allows."""
    offset = f"{'-' if hours < 0 else '+'}{abs(hours):02}:{minutes:02}"

    moment = query.time("").read(f"2026-01-02T03:04:05{offset}")

    assert moment.tzinfo is UTC
    assert moment == datetime.fromisoformat(f"2026-01-02T03:04:05{offset}")


FIRST, LAST = datetime(MIN_YEAR, 1, 1), datetime(MAX_YEAR, 12, 31)  # noqa: DTZ001  (Hypothesis adds the zone)


@given(st.datetimes(FIRST, LAST, timezones=st.just(UTC)), st.uuids())
def test_cursor_survives_the_round_trip(created_at: datetime, run_id: UUID) -> None:
    """What `encode()` returns is decoded to the same place."""
    cursor = Cursor(created_at, run_id)

    assert Cursor.decode(cursor.encode()) == cursor


@given(st.text() | st.text(alphabet="ABCabc019-_=", max_size=80))
def test_other_text_is_no_cursor(text: str) -> None:
    """Anything else is rejected as such."""
    with pytest.raises(ValueError, match="earlier page"):
        Cursor.decode(text)


@given(st.datetimes(timezones=st.just(UTC)), st.uuids(), st.integers(0, 79), st.characters())
def test_changed_cursor_is_rejected_or_another_cursor(
    created_at: datetime, run_id: UUID, position: int, character: str
) -> None:
    """A cursor with one character changed is never read as the same place."""
    text = Cursor(created_at, run_id).encode()
    changed = text[:position] + character + text[position + 1 :]
    try:
        decoded = Cursor.decode(changed)
    except ValueError:
        return
    assert decoded.encode() == changed
