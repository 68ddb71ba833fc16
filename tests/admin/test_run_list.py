"""The list of runs: columns, filters, search, counts and the queries it makes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html import unescape
from io import StringIO
from typing import Any
from unittest.mock import Mock
from uuid import UUID

import pytest
import time_machine
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from cloudrun_jobs.dashboard.admin_site import changelist as run_list
from cloudrun_jobs.models import Job, JobRun, Status, TaskRun
from tests.admin.conftest import JOBS, RUNS, record, shown

HOSTILE = "<script>alert(1)</script>\x1b[31m\u202egnp.exe"
OWN_QUERIES = re.compile("cloudrun_jobs_")


def text_of(response: Any, field: str) -> str:
    """Return the text of the first cell of that column, without its tags."""
    cell = re.search(rf'class="field-{field}[^>]*>(.*?)</t[dh]>', response.content.decode())
    assert cell is not None
    return unescape(re.sub("<[^>]*>", "", cell[1])).strip()


def test_columns(staff: Client) -> None:
    """The list shows the job, the outcome with its reason, the duration and the requester of each run."""
    start = datetime(2026, 11, 1, 3, tzinfo=UTC)
    run = record(
        *("walk", Status.FAILED),
        reason="timeout",
        started_at=start,
        finished_at=start + timedelta(seconds=192),
        requested_by="mina",
        task_count=4,
        succeeded_count=3,
    )

    response = staff.get(RUNS)

    columns = ("run_job", "run_status", "run_duration", "run_progress", "run_requester")
    assert [text_of(response, column) for column in columns] == [
        f"walk {str(run.pk)[:8]}",
        "failed The attempt exceeded its timeout.",
        "3\xa0min\xa012\xa0s",
        "3 of 4 tasks",
        "mina (delay())",
    ]


def test_run_of_another_environment(staff: Client) -> None:
    """A run of another environment than that of the settings has its name beside it."""
    run = record(environment="staging")

    assert text_of(staff.get(RUNS), "run_job") == f"echo {str(run.pk)[:8]} staging"


def test_duration_of_a_lost_run(staff: Client) -> None:
    """A run that has ended at an unknown time has none."""
    record(status=Status.LOST, started_at=datetime(2026, 11, 1, 3, tzinfo=UTC))

    assert text_of(staff.get(RUNS), "run_duration") == "-"


def test_progress_of_running_runs(staff: Client) -> None:
    """A run that has not ended shows what its tasks have reported."""
    run = record("walk", Status.RUNNING, task_count=2)
    for index in range(2):
        TaskRun.objects.create(run=run, index=index, worker=run.pk, progress_done=3, progress_total=10)

    assert text_of(staff.get(RUNS), "run_progress") == "6 of 20"


def test_row_links_to_the_page_of_the_run(staff: Client) -> None:
    """The name of the job is a link to the run's page."""
    run = record()

    assert f'<a href="{RUNS}{run.pk}/change/">' in staff.get(RUNS).content.decode()


@pytest.mark.parametrize("values", [{"command": HOSTILE}, {"requested_by": HOSTILE}, {"reason": HOSTILE[:40]}])
def test_text_of_others_is_escaped(staff: Client, values: Any) -> None:
    """HTML, control characters and bidirectional overrides in a record are shown as text."""
    record(**values)

    page = staff.get(RUNS).content.decode()

    assert "<script>alert" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;alert(1)" in page


FILTERS = {
    "status=failed": ["walk"],
    "status=": ["walk", "echo"],
    "status=nonsense": [],
    "status=%00": [],
    "job=echo": ["echo"],
    "job=gone": [],
    "job=%00": [],
    "job=%27%22%3B--": [],
    "reason=timeout": ["walk"],
    "reason=x": [],
    "trigger=http": ["echo"],
    "trigger=http&status=failed": [],
    "since=2026-03-01": ["walk"],
    "since=2026-02-27&until=2026-02-27": ["echo"],
    "until=2026-02-27": ["echo"],
    "until=2026-02-26": [],
    "since=&until=": ["walk", "echo"],
}


@pytest.mark.parametrize("query", FILTERS)
def test_filters(staff: Client, query: str) -> None:
    """Filters select by status, job, reason, trigger and local days; unknown values select nothing."""
    # The last second of 27 February in Tokyo.
    early = record(trigger="http")
    JobRun.objects.filter(pk=early.pk).update(created_at=datetime(2026, 2, 27, 14, 59, 59, tzinfo=UTC))
    record("walk", Status.FAILED, reason="timeout")

    assert shown(staff.get(f"{RUNS}?{query}")) == FILTERS[query]


@pytest.mark.parametrize("query", ["since=tomorrow", "until=2026-02-30", "since=0001-01-01", "until=9999-12-31"])
def test_impossible_days(staff: Client, query: str) -> None:
    """A day that does not exist leads to the whole list, as elsewhere in the admin."""
    record()

    assert shown(staff.get(f"{RUNS}?{query}", follow=True)) == ["echo"]


@time_machine.travel(datetime(2026, 11, 26, 20, tzinfo=UTC), tick=False)
def test_days_of_links_are_local(staff: Client) -> None:
    """ "Today" is the day in the current time zone, and the other filters stay."""
    record()

    page = staff.get(f"{RUNS}?status=succeeded&q=echo").content.decode()

    assert '<a href="?q=echo&amp;since=2026-11-27&amp;status=succeeded">Today</a>' in page


def test_filter_forms_keep_the_other_filters(staff: Client) -> None:
    """The form of a filter sends the other filters and the search too, and not its own value twice."""
    record()

    page = staff.get(f"{RUNS}?status=succeeded&job=echo&q=echo&p=1").content.decode()

    form = re.search(r"<form[^>]*>(?:(?!</form>).)*<select name=\"job\".*?</form>", page, re.DOTALL)
    assert form is not None
    assert re.findall('<input type="hidden" name="(.*?)" value="(.*?)">', form[0]) == [
        ("status", "succeeded"),
        ("q", "echo"),
    ]


def test_hundreds_of_jobs_are_one_control(staff: Client) -> None:
    """The filter of jobs is a control with an option for each job that has runs, found with one query."""
    JobRun.objects.bulk_create(
        JobRun(command=f"job_{number}", environment="test", trigger="delay") for number in range(300)
    )

    with CaptureQueriesContext(connection) as queries:
        page = staff.get(RUNS).content.decode()

    assert page.count('<option value="job_') == 300
    assert "?job=job_" not in page
    assert sum('MIN("command")' in query["sql"] for query in queries) == 1


RUN_ID = UUID("deadbeef-0000-4000-8000-000000000001")
SEARCHES = {
    "deadbeef": ["walk"],
    "deadbeef-0000": ["walk"],
    "DEADBEEF": ["walk"],
    str(RUN_ID): ["walk"],
    RUN_ID.hex: ["walk"],
    f"  {RUN_ID} ": ["walk"],
    "deadbee": [],
    "deadbeef-ffff": [],
    "walk-execution": ["walk"],
    "projects/acme/locations/asia-northeast1/jobs/walk-test/executions/walk-execution": ["walk"],
    "walk": ["walk"],
    "WAL": ["walk"],
    "walk-test": ["walk"],
    "ec": ["echo"],
    "": ["walk", "echo"],
    "   ": ["walk", "echo"],
    "nothing": [],
    "\0": [],
    "echo\0": [],
    "'; DROP TABLE--": [],
    '"': [],
    "%": [],
    "_": [],
    "\ud7ff\u202e": [],
    "x" * 1_000_000: [],
}


@pytest.mark.parametrize("text", SEARCHES, ids=lambda text: text[:30] or "empty")
def test_search(staff: Client, text: str) -> None:
    """The search finds a run by its id, eight digits of it or its execution, and the runs of a job by its name."""
    record()
    record("walk", Status.RUNNING, pk=RUN_ID, execution="walk-execution")

    assert shown(staff.get(RUNS, {"q": text})) == SEARCHES[text]


def test_search_finds_jobs_by_a_declared_name(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Cloud Run name that a command declares finds its runs."""
    from tests.jobs.management.commands import echo

    monkeypatch.setattr(echo.Command, "job_name", "reverberation", raising=False)
    record()

    assert shown(staff.get(RUNS, {"q": "reverberation"})) == ["echo"]


@pytest.mark.parametrize("query", ["", "?status=running", "?job=walk&q=walk", "?q=deadbeef", "?since=2026-01-01"])
def test_queries_of_a_page(staff: Client, query: str) -> None:
    """A page makes a constant number of queries, however many runs it shows, and reads no long field."""
    for _ in range(30):
        run = record("walk", Status.RUNNING)
        TaskRun.objects.create(run=run, index=0, worker=run.pk, progress_done=1)

    with CaptureQueriesContext(connection) as queries:
        staff.get(RUNS + query)

    own = [each["sql"] for each in queries if OWN_QUERIES.search(each["sql"])]
    assert len(own) <= 6
    assert all("LIMIT" in sql for sql in own if "COUNT(*)" in sql)
    assert not [sql for sql in own if "traceback" in sql or '"result"' in sql or "argv" in sql]


def test_count_is_capped(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list counts a limited number of rows, says so, and pages through them."""
    monkeypatch.setattr(run_list, "MAX_COUNT", 5)
    for _ in range(7):
        record()

    page = staff.get(RUNS).content.decode()

    assert "5+ runs" in page
    assert "Older runs are not on these pages." in page


def test_full_count(staff: Client) -> None:
    """A list of all runs says nothing of older ones."""
    record()

    assert "Older runs" not in staff.get(RUNS).content.decode()


def test_count_with_a_thousand_separator(settings: Any) -> None:
    """A capped count is readable with and without Django's grouping of digits."""
    plain = str(run_list.CappedCount(2000))
    settings.USE_THOUSAND_SEPARATOR = True

    assert (plain, str(run_list.CappedCount(2000))) == ("2,000+", "2000")


def test_facets_are_not_counted(staff: Client) -> None:
    """The parameter for counts beside the filters is ignored: each would read the whole table."""
    record()

    with CaptureQueriesContext(connection) as queries:
        staff.get(f"{RUNS}?_facets=True")

    assert not [each for each in queries if "CASE WHEN" in each["sql"] or "__c" in each["sql"]]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{RUNS}add/", 403),
        (f"{RUNS}{{run}}/delete/", 403),
        (f"{RUNS}{{run}}/change/", 200),
        (f"{RUNS}{{run}}/history/", 200),
        (f"{RUNS}nonsense/change/", 302),
        (f"{RUNS}%00/change/", 302),
        (f"{RUNS}{RUN_ID}/change/", 302),
        (f"{JOBS}", 200),
        (f"{JOBS}add/", 403),
        (f"{JOBS}echo/delete/", 403),
        (f"{JOBS}echo/change/", 200),
        (f"{JOBS}run_5Fdaily_5Fingest/change/", 200),
    ],
)
def test_pages(staff: Client, path: str, status: int) -> None:
    """Rows are read-only, and an unknown run leads to the list."""
    run = record()

    assert staff.get(path.format(run=run.pk)).status_code == status


@pytest.mark.parametrize(
    "path", [RUNS, JOBS, f"{RUNS}{{run}}/change/", f"{JOBS}echo/change/", f"{JOBS}echo/history/"]
)
def test_pages_need_the_permission(sign_in: Callable[..., Client], path: str) -> None:
    """Without `view_jobrun`, a member of staff sees neither runs nor jobs."""
    run = record()

    assert sign_in("run_job", "cancel_job").get(path.format(run=run.pk)).status_code == 403


def test_history_of_a_job(staff: Client) -> None:
    """The admin's history of a job shows the actions that are logged under its name, and links to its page."""
    from django.contrib.admin.models import CHANGE, LogEntry
    from django.contrib.auth.models import User

    job = Job(pk="run_daily_ingest", command="run_daily_ingest")
    LogEntry.objects.log_actions(User.objects.get().pk, [job], CHANGE, "Paused it.", single_object=True)

    page = staff.get(f"{JOBS}run_5Fdaily_5Fingest/history/").content.decode()

    assert "Paused it." in page
    assert f'href="{JOBS}run_5Fdaily_5Fingest/change/"' in page


@pytest.mark.parametrize(("name", "status"), [("echo", 200), ("removed", 302)])
def test_history_imports_no_command(
    staff: Client, monkeypatch: pytest.MonkeyPatch, name: str, status: int
) -> None:
    """The history of a job whose command cannot be imported is shown; that of no command is not found."""
    monkeypatch.setattr("cloudrun_jobs.registry.jobs.import_module", Mock(side_effect=ImportError))

    assert staff.get(f"{JOBS}{name}/history/").status_code == status


@pytest.mark.filterwarnings("error")
def test_dump_of_the_data() -> None:
    """`dumpdata` has each run once: jobs have no rows."""
    run, output = record(), StringIO()

    call_command("dumpdata", "cloudrun_jobs", stdout=output)

    assert [(row["model"], row["pk"]) for row in json.loads(output.getvalue())] == [
        ("cloudrun_jobs.jobrun", str(run.pk))
    ]


def test_history_of_an_unknown_job(staff: Client) -> None:
    """A name that is no job, and has no runs, has no history."""
    assert staff.get(f"{JOBS}nothing/history/").status_code == 302


def test_history_of_a_removed_job(staff: Client) -> None:
    """The history of a job whose command is gone can be read while its runs are recorded."""
    record("removed")

    assert staff.get(f"{JOBS}removed/history/").status_code == 200


@pytest.mark.parametrize("query", ["created_at__year=0", f"task_count__gt={10**30}", "tasks__index=1"])
def test_other_lookups_are_refused(staff: Client, query: str) -> None:
    """The address selects runs by the filters only: databases reject some values of other look-ups."""
    assert staff.get(f"{RUNS}?{query}").status_code == 400


@pytest.mark.parametrize(("name", "headers"), [("change", {"x-cloudrun-jobs-live": "1"}), ("events", {})])
def test_open_page_of_a_deleted_run_ends(staff: Client, name: str, headers: dict[str, str]) -> None:
    """The requests of an open page leave no message for the next page of the user."""
    response = staff.get(f"{RUNS}{UUID(int=9)}/{name}/", headers=headers)

    assert response.status_code == 404
    assert "is recorded" not in staff.get(RUNS).content.decode()
