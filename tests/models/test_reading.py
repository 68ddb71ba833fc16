"""Queries of run records, and the subcommands that show them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from cloudrun_jobs import LockManager
from cloudrun_jobs.models import JobRun, Progress, Status, TaskRun
from cloudrun_jobs.runs.data import read_progress
from cloudrun_jobs.terminal import is_unsafe
from tests.jobs.management.commands import echo
from tests.models.conftest import Record
from tests.servers.routing import To


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    call_command("cloudrun_jobs", *arguments)
    return capsys.readouterr().out.splitlines()


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads("\n".join(printed(capsys, *arguments, "--json")))


def test_querysets(record: Record) -> None:
    """Runs are selected by job and status."""
    (ran,) = record("echo", Status.SUCCEEDED, days=1)
    (active,) = record("echo", Status.RUNNING)
    (failed,) = record("other", Status.FAILED)
    (lost,) = record("other", Status.LOST)

    assert set(JobRun.objects.for_command(echo.Command)) == {ran, active}
    assert set(JobRun.objects.for_command("other").failed()) == {failed, lost}
    assert set(JobRun.objects.running()) == {active}
    assert JobRun.objects.for_command("echo").latest() == active
    assert list(JobRun.objects.commands()) == ["echo", "other"]


def test_distinct_values(record: Record, database: str) -> None:
    """The values of an indexed column are read with one query."""
    for command, reason in (("echo", ""), ("echo", "timeout"), ("other", "error")):
        record(command, Status.FAILED, reason=reason, count=2)

    with CaptureQueriesContext(connections[database]) as queries:
        found = {column: JobRun.objects.distinct_values(column) for column in ("command", "reason", "trigger")}

    assert found == {"command": ["echo", "other"], "reason": ["", "error", "timeout"], "trigger": ["delay"]}
    assert len(queries) == 3


def test_distinct_values_without_runs(database: str) -> None:
    """An empty table has no values."""
    assert JobRun.objects.distinct_values("command") == []


PREFIXES = {
    "deadbeef": 2,
    "DEADBEEF-0000": 2,
    "deadbeef-0000-4000-8000-00000000000": 2,
    "deadbeef-0000-4000-8000-000000000001": 1,
    "deadbeef000040008000000000000001": 1,
    "deadbee": 0,
    "deadbeef-0001": 0,
    "deadbeef0000400080000000000000010": 0,
    "nonsense": 0,
    "": 0,
}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_runs_are_found_by_the_start_of_their_id(record: Record, prefix: str) -> None:
    """Eight digits or more find the runs whose ids begin with them, with or without hyphens."""
    for number in (1, 2):
        record("echo", Status.SUCCEEDED, pk=UUID(f"deadbeef-0000-4000-8000-00000000000{number}"))
    record("echo", Status.SUCCEEDED)

    assert JobRun.objects.with_id_prefix(prefix).count() == PREFIXES[prefix]


def test_stats_by_job(record: Record) -> None:
    """The newest runs of each job are counted by status; the last success and failure may be older."""
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


def test_progress_is_read_with_the_runs(record: Record) -> None:
    """The database adds up the reports of each run's tasks as `JobRun.progress` does."""
    runs = record("echo", Status.RUNNING, count=5, task_count=3)
    reports = [
        [(1, 9, "first"), (2, 9, "second"), (3, 9, "")],
        [(2**60, None, ""), (2**60, 2**62, "text"), (3, 4, "東京")],
        [(0, 0, "")],
        [(None, None, ""), (4, 5, "half")],
        [],
    ]
    for run, tasks in zip(runs, reports, strict=True):
        run.tasks.all().delete()
        for index, (done, total, text) in enumerate(tasks):
            values = {"progress_done": done, "progress_total": total, "progress_text": text}
            heartbeat_at = run.created_at - timedelta(seconds=index % 2)
            TaskRun.objects.create(run=run, index=index, worker=uuid4(), heartbeat_at=heartbeat_at, **values)

    with CaptureQueriesContext(connections[JobRun.objects.db]) as queries:
        found = dict(read_progress([run.pk for run in runs]))

    assert len(queries) == 1
    assert found == {run: run.progress for run in runs}


def test_stats_of_runs_with_the_same_time(record: Record) -> None:
    """No more than the newest are counted."""
    record("echo", Status.SUCCEEDED, count=9)
    JobRun.objects.update(created_at=datetime(2026, 1, 2, tzinfo=UTC))

    assert JobRun.objects.stats(newest=4)["echo"].counts == {Status.SUCCEEDED: 4}


@pytest.mark.parametrize("value", ["7", 'a "b" \\c', "100%_", "한국 é", "😀"])
def test_runs_with_an_argument(record: Record, value: str) -> None:
    """The arguments are found whatever their characters, in their case, and only as a whole."""
    argument = f"--note={value}"
    for arguments in (
        [argument, "--partner=1"],
        [f"{argument}x"],
        [f"x{argument}"],
        [argument.swapcase()],
        ["--partner=1"],
    ):
        record("echo", Status.SUCCEEDED, argv=["echo", *arguments])
    record("echo", Status.SUCCEEDED, argv=None)

    assert [run.argv[1] for run in JobRun.objects.with_arguments([argument])] == [argument]
    assert JobRun.objects.with_arguments([argument, "--partner=1"]).count() == 1
    assert JobRun.objects.with_arguments(["--partner=1"]).count() == 2


def test_stats_without_runs(database: str) -> None:
    """There is nothing to report."""
    assert JobRun.objects.stats() == {}


@pytest.mark.parametrize(
    ("seconds", "p50", "p95"),
    [([], None, None), ([3], 3, 3), ([4, 1, 3, 2], 2, 4), (range(1, 101), 50, 95), (range(1, 21), 10, 19)],
    ids=str,
)
def test_durations(record: Record, seconds: Sequence[int], p50: int | None, p95: int | None) -> None:
    """Percentiles of the runs that have started and ended."""
    record("echo", Status.RUNNING)
    for run, duration in zip(record("echo", Status.SUCCEEDED, count=len(seconds)), seconds, strict=True):
        start = datetime(2026, 1, 2, tzinfo=UTC)
        JobRun.objects.filter(pk=run.pk).update(started_at=start, finished_at=start + timedelta(seconds=duration))

    stats = JobRun.objects.stats(newest=101)["echo"]

    assert [value and value.total_seconds() for value in (stats.p50, stats.p95)] == [p50, p95]


def test_stats_cost_one_query(record: Record, database: str) -> None:
    """There is one query for all jobs."""
    record("echo", Status.SUCCEEDED, count=20)
    record("other", Status.SUCCEEDED, count=3)

    with CaptureQueriesContext(connections[database]) as queries:
        JobRun.objects.stats()

    assert len(queries) == 1


def test_stats_of_one_job(record: Record) -> None:
    """They are those that the stats of all jobs have; a job without runs has none."""
    record("echo", Status.SUCCEEDED, count=3)
    record("echo", Status.FAILED)
    record("other", Status.SUCCEEDED)

    assert JobRun.objects.stats(command="echo") == {"echo": JobRun.objects.stats()["echo"]}
    assert JobRun.objects.stats(command="none") == {}


def test_progress_of_tasks_is_added_up(record: Record) -> None:
    """Reports of tasks are added up; there is no total until each task has reported one."""
    (run,) = record("echo", Status.RUNNING, task_count=2)

    assert run.progress is None

    TaskRun.objects.filter(run=run).update(progress_done=3, progress_total=10, progress_text="first")

    assert run.progress == Progress(3, None, "first")

    TaskRun.objects.create(run=run, index=1, worker=uuid4(), progress_done=4, progress_total=20)

    assert run.progress == Progress(7, 30, "first")


def test_runs_are_listed(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs are listed newest first, with status, duration and requester."""
    (old,) = record("other", Status.FAILED, days=2, reason="error", requested_by="ada")
    (new,) = record("echo", Status.RUNNING)

    lines = printed(capsys, "runs")

    assert lines[0].split("  ")[0] == "RUN"
    assert [line.split()[0] for line in lines[1:]] == [str(new.pk), str(old.pk)]
    assert "failed (error)" in lines[2]
    assert "JST" in lines[2]
    assert lines[2].endswith("0:00:00  default  ada")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), ["c", "b", "a"]),
        (("job",), ["b", "a"]),
        (("--failed",), ["b"]),
        (("--running",), ["c"]),
        (("--limit=1",), ["c"]),
    ],
)
def test_listed_runs_are_filtered(
    record: Record, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], expected: list[str]
) -> None:
    """The list is filtered by job and status, and limited."""
    record("job", Status.SUCCEEDED, days=3, execution="a")
    record("job", Status.LOST, days=2, execution="b")
    record("other", Status.SENT, days=1, execution="c")

    assert [run["execution"] for run in as_json(capsys, "runs", *options)] == expected


def test_an_empty_list_prints_to_stderr(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The message for an empty list goes to stderr."""
    call_command("cloudrun_jobs", "runs", "echo")

    assert capsys.readouterr() == ("", "No such run is recorded.\n")


def test_reservations_are_listed(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    """Pending reservations are listed with their due time, as a table and as JSON."""
    call_command("cloudrun_jobs", "reservations")
    assert capsys.readouterr() == ("", "No run is reserved.\n")

    due = datetime(2027, 1, 2, 3, 4, tzinfo=UTC)
    (run,) = record("echo", Status.PENDING, trigger="reserve", scheduled_for=due, requested_by="ada")

    head, line = printed(capsys, "reservations")
    assert head.split("  ")[0] == "RUN"
    assert line.startswith(f"{run.pk}  echo  2027-01-02 12:04:00 JST  ada")
    (found,) = as_json(capsys, "reservations")
    assert (found["id"], found["scheduled_for"]) == (str(run.pk), "2027-01-02T03:04:00Z")


def test_show_refuses_a_job_that_is_gone(record: Record) -> None:
    """The error for the name of a job that no longer exists says how to list its runs."""
    record("swept", Status.SUCCEEDED)

    with pytest.raises(CommandError, match=re.escape("`manage.py cloudrun_jobs runs swept` lists")):
        call_command("cloudrun_jobs", "show", "swept")


def test_a_redundant_reason_is_omitted(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    """A reason that equals the status is not shown."""
    record("echo", Status.CANCELLED, reason="cancelled")

    assert "cancelled (" not in "".join(printed(capsys, "runs"))


@pytest.mark.parametrize(
    ("verb", "nothing"), [("runs", []), ("stats", {}), ("reservations", []), ("locks", [])], ids=str
)
def test_empty_lists_are_json(
    database: str, capsys: pytest.CaptureFixture[str], verb: str, nothing: object
) -> None:
    """--json prints JSON and no message if there is nothing to list."""
    call_command("cloudrun_jobs", verb, "--json")
    out, err = capsys.readouterr()

    assert (json.loads(out), err) == (nothing, "")


def test_an_unavailable_database_is_reported(settings: Settings, django_db_blocker: Any) -> None:
    """A subcommand reports an unavailable database in one line."""
    nowhere = {**connections.settings["default"], "ENGINE": "django.db.backends.sqlite3", "NAME": "/nowhere/db"}
    connections.settings["nowhere"] = nowhere
    settings.DATABASE_ROUTERS = [To("nowhere")]

    with django_db_blocker.unblock(), pytest.raises(CommandError, match="'nowhere' failed: unable"):
        call_command("cloudrun_jobs", "runs")

    del connections["nowhere"], connections.settings["nowhere"]


def test_a_misspelt_job_is_refused(record: Record) -> None:
    """The error for an unknown job suggests a similar name."""
    record("nightly", Status.SUCCEEDED)

    with pytest.raises(CommandError, match="Did you mean 'nightly'"):
        call_command("cloudrun_jobs", "runs", "nighly")


def test_a_limit_of_zero_is_refused(database: str) -> None:
    """The limit must be at least 1."""
    with pytest.raises(CommandError, match="expected a whole number from 1 to 999999999, got '0'"):
        call_command("cloudrun_jobs", "runs", "--limit=0")


def test_stats_are_printed(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    """Stats are printed as a table and as JSON."""
    record("echo", Status.SUCCEEDED, count=3)
    record("echo", Status.FAILED, days=1)

    assert printed(capsys, "stats")[1].endswith("3 succeeded, 1 failed")
    assert as_json(capsys, "stats")["echo"]["counts"] == {"succeeded": 3, "failed": 1}


def failed_run(record: Record) -> JobRun:
    values = {"error_class": "ValueError", "error_message": "no good", "traceback": "line 1\nline 2"}
    (run,) = record("echo", Status.FAILED, argv=["echo", "--note=a b"], execution="echo-test-x7k2p", **values)
    return run


@pytest.mark.parametrize("name", ["id", "execution", "full name"])
def test_show_prints_a_run(record: Record, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """A run is found by its id or its execution, and shown without the traceback."""
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


@pytest.mark.parametrize("length", [8, 9, 20, 35])
def test_show_finds_a_run_by_the_beginning_of_its_id(
    record: Record, capsys: pytest.CaptureFixture[str], length: int
) -> None:
    """Eight digits or more are enough, in upper case too."""
    (run,) = record("echo", Status.FAILED)
    record("echo", Status.SUCCEEDED, count=3)

    assert str(run.pk) in printed(capsys, "show", str(run.pk)[:length].upper())[0]


def test_show_refuses_an_ambiguous_id(record: Record) -> None:
    """The error names the runs whose ids begin so; fewer digits are no id."""
    ids = [f"7b1a2c9e-000{number}-4000-8000-000000000000" for number in range(2)]
    for number in ids:
        record("echo", Status.FAILED, pk=number)

    with pytest.raises(CommandError, match=f"2 runs begin with '7b1a2c9e': {ids[0]}, {ids[1]}|{ids[1]}, {ids[0]}"):
        call_command("cloudrun_jobs", "show", "7b1a2c9e")
    with pytest.raises(CommandError, match="No run '7b1a2c9' is recorded"):
        call_command("cloudrun_jobs", "show", "7b1a2c9")


def test_show_prints_the_traceback_on_request(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    """--traceback adds the traceback to the text and to JSON."""
    run = failed_run(record)

    assert printed(capsys, "show", str(run.pk), "--traceback")[-2:] == ["  line 1", "  line 2"]
    assert "traceback" not in as_json(capsys, "show", str(run.pk))
    assert as_json(capsys, "show", str(run.pk), "--traceback")["traceback"] == "line 1\nline 2"


@pytest.mark.parametrize("name", ["7b1a2c9e-0000-4000-8000-000000000000", "nothing", ""])
def test_show_refuses_an_unknown_run(record: Record, name: str) -> None:
    """The name of an unknown run is an error."""
    failed_run(record)

    with pytest.raises(CommandError, match="is recorded"):
        call_command("cloudrun_jobs", "show", name)


UNSAFE = "".join(map(chr, {*range(1, 0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)}))
FORGED = f"forged{UNSAFE}\u2028\u2029\u200f\U000e0041\nJob  forged"


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize("subcommand", ["runs", "show --traceback", "stats", "reservations", "locks"])
def test_values_cannot_forge_output(
    record: Record, capsys: pytest.CaptureFixture[str], subcommand: str, as_json: list[str]
) -> None:
    """No subcommand prints a control character of a value, or begins a line with a part of it."""
    values = {"error_class": FORGED, "error_message": FORGED, "traceback": FORGED, "requested_by": FORGED}
    values |= {"schedule": FORGED, "image": FORGED, "log_uri": FORGED, "reason": FORGED[:40], "execution": FORGED}
    values |= {"argv": [FORGED], "result": {FORGED: FORGED}}
    (run,) = record(FORGED, Status.FAILED, **values)
    record("reserved", Status.PENDING, trigger="reserve", requested_by=FORGED)
    names = [str(run.pk)] if subcommand.startswith("show") else []

    with LockManager(f"x{FORGED}").lock():
        call_command("cloudrun_jobs", *subcommand.split(), *names, *as_json)

    printed = "".join(capsys.readouterr())
    assert "forged" in printed
    assert [
        line for line in printed.split("\n") if line.startswith("Job  forged") or any(map(is_unsafe, line))
    ] == []


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("subcommand", ["runs", "show", "unlock"])
def test_a_name_cannot_forge_an_error(database: str, subcommand: str) -> None:
    """The text of an error is escaped."""
    with pytest.raises(CommandError) as error:
        call_command("cloudrun_jobs", subcommand, FORGED)

    assert not any(map(is_unsafe, str(error.value)))
