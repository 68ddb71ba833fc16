"""What is asked of the records: the latest, the failed, how each job fares, one run with all there is to know."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from cloudrun_jobs.models import JobRun, Progress, Status, TaskRun
from tests.jobs.management.commands import echo
from tests.models.conftest import Record
from tests.servers.routing import To


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    call_command("cloudrun_jobs", *words)
    return capsys.readouterr().out.splitlines()


def as_json(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    return json.loads("\n".join(printed(capsys, *words, "--json")))


def test_manager_selects_runs(record: Record) -> None:
    """Runs are found by job, by whether they are under way, and by whether they failed."""
    (ran,) = record("echo", Status.SUCCEEDED, days=1)
    (runs,) = record("echo", Status.RUNNING)
    (failed,) = record("other", Status.FAILED)
    (lost,) = record("other", Status.LOST)

    assert set(JobRun.objects.for_command(echo.Command)) == {ran, runs}
    assert set(JobRun.objects.for_command("other").failed()) == {failed, lost}
    assert set(JobRun.objects.running()) == {runs}
    assert JobRun.objects.for_command("echo").latest() == runs
    assert list(JobRun.objects.commands()) == ["echo", "other"]


def test_stats(record: Record) -> None:
    """Of each job, the newest runs are counted by status, and the last good and bad end is found at any age."""
    record("echo", Status.SUCCEEDED, count=2)
    (failed,) = record("echo", Status.FAILED, days=3)
    (lost,) = record("echo", Status.LOST, days=2)
    good, *_ = record("sick", Status.SUCCEEDED, days=90, count=2)
    record("sick", Status.FAILED, days=1, count=5)
    record("new", Status.PENDING)

    stats = JobRun.objects.stats(newest=4)

    assert list(stats) == ["echo", "new", "sick"]
    assert stats["echo"].counts == {Status.SUCCEEDED: 2, Status.LOST: 1, Status.FAILED: 1}
    assert stats["echo"].last_failure == max(lost, failed, key=lambda run: run.created_at).finished_at
    assert stats["sick"].counts == {Status.FAILED: 4}
    assert stats["sick"].last_success == good.finished_at
    assert (stats["new"].last_success, stats["new"].last_failure) == (None, None)


def test_stats_cost_two_queries_for_each_job(record: Record, database: str) -> None:
    """There are two queries for each job, and one that finds no other."""
    record("echo", Status.SUCCEEDED, count=20)
    record("other", Status.SUCCEEDED, count=3)

    with CaptureQueriesContext(connections[database]) as queries:
        JobRun.objects.stats()

    assert len(queries) == 5


def test_progress_of_tasks_together(record: Record) -> None:
    """What tasks told is added up; there is no total until all of them told theirs."""
    (run,) = record("echo", Status.RUNNING, task_count=2)

    assert run.progress is None

    TaskRun.objects.filter(run=run).update(progress_done=3, progress_total=10, progress_text="first")

    assert run.progress == Progress(3, None, "first")

    TaskRun.objects.create(run=run, index=1, worker=uuid4(), progress_done=4, progress_total=20)

    assert run.progress == Progress(7, 30, "first")


def test_list_of_runs(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    """The latest runs are listed, newest first, with how they ended, how long they took, and for whom."""
    (old,) = record("other", Status.FAILED, days=2, reason="error", requested_by="ada")
    (new,) = record("echo", Status.RUNNING)

    lines = printed(capsys, "runs")

    assert lines[0].split("  ")[0] == "RUN"
    assert [line.split()[0] for line in lines[1:]] == [str(new.pk), str(old.pk)]
    assert "failed (error)" in lines[2]
    assert "JST" in lines[2]
    assert lines[2].endswith("0:00:00  ada")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), ["c", "b", "a"]),
        (("job",), ["b", "a"]),
        (("--failed",), ["b"]),
        (("--running",), ["c"]),
        (("--limit=1",), ["c"]),
    ],
)
def test_which_runs_are_listed(
    record: Record, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], expected: list[str]
) -> None:
    """The list can be of one job, of the failed, of those under way, and as short as wanted; and JSON."""
    record("job", Status.SUCCEEDED, days=3, execution="a")
    record("job", Status.LOST, days=2, execution="b")
    record("other", Status.SENT, days=1, execution="c")

    assert [run["execution"] for run in as_json(capsys, "runs", *words)] == expected


def test_nothing_to_list(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is nothing, nothing is on stdout: words go to stderr."""
    call_command("cloudrun_jobs", "runs", "echo")

    assert capsys.readouterr() == ("", "No such run is recorded.\n")


def test_reservations(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    """Those that wait are listed with the time they are due, in the columns of the other lists; and as JSON."""
    call_command("cloudrun_jobs", "reservations")
    assert capsys.readouterr() == ("", "No run is reserved.\n")

    due = datetime(2027, 1, 2, 3, 4, tzinfo=UTC)
    (run,) = record("echo", Status.PENDING, trigger="reserve", scheduled_for=due, requested_by="ada")

    head, line = printed(capsys, "reservations")
    assert head.split("  ")[0] == "RUN"
    assert line.startswith(f"{run.pk}  echo  2027-01-02 12:04:00 JST  ada")
    (found,) = as_json(capsys, "reservations")
    assert (found["run"], found["scheduled_for"]) == (str(run.pk), "2027-01-02T03:04:00Z")


def test_a_job_is_no_run(record: Record) -> None:
    """Who asks to be shown a job is told how to list its runs."""
    record("echo", Status.SUCCEEDED)

    with pytest.raises(CommandError, match=re.escape("`manage.py cloudrun_jobs runs echo` lists")):
        call_command("cloudrun_jobs", "show", "echo")


def test_a_reason_that_says_no_more_is_left_out(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    """A cancelled run is not cancelled for being cancelled."""
    record("echo", Status.CANCELLED, reason="cancelled")

    assert "cancelled (" not in "".join(printed(capsys, "runs"))


@pytest.mark.parametrize(
    ("verb", "nothing"), [("runs", []), ("stats", {}), ("reservations", []), ("locks", [])], ids=str
)
def test_nothing_to_tell_a_machine(
    database: str, capsys: pytest.CaptureFixture[str], verb: str, nothing: object
) -> None:
    """It is JSON all the same, and nothing else is said."""
    call_command("cloudrun_jobs", verb, "--json")
    out, err = capsys.readouterr()

    assert (json.loads(out), err) == (nothing, "")


def test_a_database_that_is_away(settings: Settings, django_db_blocker: Any) -> None:
    """A verb says so in a line, without a traceback."""
    nowhere = {**connections.settings["default"], "ENGINE": "django.db.backends.sqlite3", "NAME": "/nowhere/db"}
    connections.settings["nowhere"] = nowhere
    settings.DATABASE_ROUTERS = [To("nowhere")]

    with django_db_blocker.unblock(), pytest.raises(CommandError, match="'nowhere' failed: unable"):
        call_command("cloudrun_jobs", "runs")

    del connections["nowhere"], connections.settings["nowhere"]


def test_misspelt_job(record: Record) -> None:
    """A job that neither exists nor ever ran is a mistake, and a near name is offered."""
    record("nightly", Status.SUCCEEDED)

    with pytest.raises(CommandError, match="Did you mean 'nightly'"):
        call_command("cloudrun_jobs", "runs", "nighly")


def test_bad_limit(database: str) -> None:
    """A list of no runs is a mistake."""
    with pytest.raises(CommandError, match="at least 1, got 0"):
        call_command("cloudrun_jobs", "runs", "--limit=0")


def test_stats_verb(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    """How each job fares is shown in a table, and as JSON."""
    record("echo", Status.SUCCEEDED, count=3)
    record("echo", Status.FAILED, days=1)

    assert printed(capsys, "stats")[1].endswith("3 succeeded, 1 failed")
    assert as_json(capsys, "stats")["echo"]["counts"] == {"succeeded": 3, "failed": 1}


def failed_run(record: Record) -> JobRun:
    values = {"error_class": "ValueError", "error_message": "no good", "traceback": "line 1\nline 2"}
    (run,) = record("echo", Status.FAILED, argv=["echo", "--note=a b"], execution="echo-test-x7k2p", **values)
    return run


@pytest.mark.parametrize("name", ["id", "execution", "full name"])
def test_one_run(record: Record, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """A run is shown by its id or its execution, without the traceback unless that is asked for."""
    run = failed_run(record)
    names = {
        "id": str(run.pk),
        "execution": "echo-test-x7k2p",
        "full name": "projects/a/executions/echo-test-x7k2p",
    }

    shown = dict(line.split("  ", 1) for line in printed(capsys, "show", names[name]))

    assert shown["Error"].strip() == "ValueError: no good"
    assert shown["Command line"].strip() == "echo '--note=a b'"
    assert "line 2" not in str(shown)
    assert "Sent" not in shown


def test_traceback_on_request(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    """The traceback is shown where it is asked for, in the table's words and in JSON."""
    run = failed_run(record)

    assert printed(capsys, "show", str(run.pk), "--traceback")[-2:] == ["line 1", "line 2"]
    assert "traceback" not in as_json(capsys, "show", str(run.pk))
    assert as_json(capsys, "show", str(run.pk), "--traceback")["traceback"] == "line 1\nline 2"


@pytest.mark.parametrize("name", ["7b1a2c9e-0000-4000-8000-000000000000", "nothing", ""])
def test_unknown_run(record: Record, name: str) -> None:
    """A run that is not recorded is an error, as is what can be no run's name."""
    failed_run(record)

    with pytest.raises(CommandError, match="is recorded"):
        call_command("cloudrun_jobs", "show", name)
