"""A run with failed items fails, and failed tasks and items are listed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connections
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from cloudrun_jobs.exceptions import JobFailed
from cloudrun_jobs.models import ItemChunk, ItemList, JobRun, Status, TaskRun
from cloudrun_jobs.models.failures import failed_tasks, undone_tasks
from cloudrun_jobs.operations import ExecutionState
from cloudrun_jobs.runs.data import run_data
from tests.jobs.management.commands import echo
from tests.runs.conftest import EXECUTION, Container, begin, in_every_database, request, store_records


@pytest.fixture(params=["sqlite"], autouse=True)
def database(request: pytest.FixtureRequest, settings: Settings, django_db_blocker: Any) -> Iterator[str]:
    """Store the records in one kind of database, except for tests that need each."""
    yield from store_records(request, settings, django_db_blocker)


def record_items(run: JobRun, *, failed: int, done: int = 1) -> None:
    """Record a claimed list with this number of failed items."""
    count = failed + done
    items = ItemList.objects.create(run=run, kind=ItemList.Kind.CLAIM, number=0, count=count, writer=run.pk)
    for index in range(count):
        error = {"error_class": "ValueError", "error_message": f"no {index}"} if index < failed else {}
        status = ItemChunk.Status.FAILED if index < failed else ItemChunk.Status.DONE
        ItemChunk.objects.create(list=items, start=index, size=1, items=[f"é{index}"], status=status, **error)
    JobRun.objects.filter(pk=run.pk).update(items_total=count)


@pytest.fixture
def failing_items(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that makes this many items fail in the runs of `echo`."""

    def failing(count: int) -> None:
        def run(self: echo.Command, **options: Any) -> str:
            record_items(self._active.run, failed=count)
            return "worked"

        monkeypatch.setattr(echo.Command, "run", run)

    return failing


@in_every_database
def test_failed_items_fail_the_run(container: Container, failing_items: Callable[[int], None]) -> None:
    """The task has done its work: it exits with 0, and Cloud Run does not retry it."""
    failing_items(2)

    assert container.run("echo") == 0
    run = JobRun.objects.get()
    assert (run.status, run.reason, run.result, run.succeeded_count) == (Status.FAILED, "items", "worked", 1)
    assert run.error_message == '2 items failed: "é0" (ValueError: no 0); "é1" (ValueError: no 1).'
    assert run.tasks.get().status == Status.SUCCEEDED


def test_twenty_failed_items_are_listed(failing_items: Callable[[int], None], container: Container) -> None:
    failing_items(23)
    container.run("echo")

    run = JobRun.objects.get()
    assert run.error_message.startswith('23 items failed: "é0" (ValueError: no 0); ')
    assert run.error_message.endswith('"é19" (ValueError: no 19); and 3 more.')
    listed = run_data(run)["failed_items"]
    assert (listed["count"], len(listed["first"])) == (23, 20)
    error = {"error_class": "ValueError", "error_message": "no 0"}
    assert listed["first"][0] == {"index": 0, "item": "é0", **error}


def test_callers_get_an_error(failing_items: Callable[[int], None]) -> None:
    """Inline, delay() raises, because run() raised nothing."""
    failing_items(1)
    with pytest.raises(JobFailed, match=r'1 item failed: "é0" \(ValueError: no 0\)'):
        echo.Command().delay()
    with pytest.raises(JobFailed, match="1 item failed"):
        call_command("echo")

    assert set(JobRun.objects.values_list("status", "reason")) == {(Status.FAILED, "items")}
    with pytest.raises(JobFailed, match="1 item failed"):
        JobRun.objects.newest_first()[0].operation.result()


def test_the_command_line_fails(
    failing_items: Callable[[int], None], container: Container, capsys: pytest.CaptureFixture[str]
) -> None:
    """Outside a container, the exit status shows the failure."""
    failing_items(1)

    assert container.run("echo", execution="") == 1
    assert "1 item failed" in capsys.readouterr().err


def test_items_that_are_done_are_no_failure(failing_items: Callable[[int], None]) -> None:
    failing_items(0)

    assert echo.Command().delay().result() == "worked"


def test_failed_items_fail_a_run_that_recorded_no_end() -> None:
    """Cloud Run says only that all tasks exited with 0."""
    run = request(status=Status.RUNNING, execution=EXECUTION)
    record_items(run, failed=1)
    TaskRun.objects.create(run=run, index=0, worker=run.pk)

    assert run.apply_state(ExecutionState(status="succeeded", succeeded_count=1), EXECUTION)
    run.refresh_from_db()
    assert (run.status, run.reason) == (Status.FAILED, "items")
    assert run.error_message == '1 item failed: "é0" (ValueError: no 0).'
    assert run.tasks.get().status == Status.SUCCEEDED


@in_every_database
def test_the_last_task_finds_failed_items() -> None:
    """The failed items of every task count."""
    run = request()
    for index in range(2):
        with begin(run, index=index, count=2):
            if not index:
                record_items(run, failed=1)

    run.refresh_from_db()
    assert (run.status, run.reason, run.succeeded_count) == (Status.FAILED, "items", 2)


def test_runs_without_items_cost_no_query(database: str) -> None:
    """Listing runs that succeeded costs no query either."""
    with CaptureQueriesContext(connections[database]) as queries:
        echo.Command().delay()
        run = JobRun.objects.get()
        run_data(run)

    assert not [query for query in queries if "item" in query["sql"].partition("FROM")[2]]


def test_failed_tasks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """At most 20, with a count of the rest: in `show`, in the error of the handle, and as data."""
    run = request(argv=["echo"], status=Status.SENT, execution=EXECUTION)
    for index in range(25):
        with suppress(ValueError), begin(run, index=index, count=25):
            if index > 1:
                raise ValueError(f"no\n{index}")
    run.refresh_from_db()

    listed = run_data(run)["failed_tasks"]
    assert (run.status, listed["count"], len(listed["first"])) == (Status.FAILED, 23, 20)
    error = {"reason": "error", "error_class": "ValueError", "error_message": "no\n2"}
    assert listed["first"][0] == {"index": 2, "status": "failed", **error}
    with pytest.raises(JobFailed, match=r"(?s)23 of 25 tasks did not succeed: task 2 \(ValueError.* and 3 more"):
        run.operation.result()
    call_command("cloudrun_jobs", "show", str(run.pk))
    shown = capsys.readouterr().out
    assert "Failed tasks  task 2 (ValueError: no\\n2)\n              task 3 (ValueError" in shown
    assert "\n              and 3 more\n" in shown
    call_command("cloudrun_jobs", "show", str(run.pk), "--json")
    assert json.loads(capsys.readouterr().out)["failed_tasks"]["count"] == 23


@in_every_database
def test_tasks_that_never_started_have_failed() -> None:
    """The execution was cancelled, or ended before they could start."""
    run = request(status=Status.CANCELLED, task_count=4, execution=EXECUTION)
    run.tasks.create(index=1, worker=run.pk, status=Status.SUCCEEDED)
    run.tasks.create(index=2, worker=run.pk, status=Status.CANCELLED, reason="cancelled")

    assert undone_tasks(run) == [0, 2, 3]
    assert [(task.index, task.reason) for task in failed_tasks(run).listed] == [
        (0, "never_started"),
        (2, "cancelled"),
        (3, "never_started"),
    ]


def test_a_retry_leaves_no_error_on_the_task() -> None:
    run = request("outcome")
    with suppress(ValueError), begin(run, command="outcome"):
        raise ValueError("no")
    assert run.tasks.get().error_message == "no"
    with begin(run, command="outcome", attempt=1):
        assert run.tasks.get().error_class == ""

    assert (run.tasks.get().error_class, run.tasks.get().error_message) == ("", "")


def test_show_lists_failed_items_of_a_run_with_a_failed_task(capsys: pytest.CaptureFixture[str]) -> None:
    """The error of such a run is that of the task. If only items failed, the error lists the items."""
    run = request(argv=["echo"])
    with suppress(CommandError), begin(run):
        record_items(run, failed=1)
        raise CommandError("bad")
    call_command("cloudrun_jobs", "show", str(run.pk))

    assert 'Failed items  "é0" (ValueError: no 0)' in capsys.readouterr().out


def test_items_that_no_task_has_done_fail_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop ended early; a rerun of what failed does the remaining items."""
    done = []

    def run(self: echo.Command, **options: Any) -> None:
        for item in self.claim(list("abcde"), batch=2):
            with self.item(item):
                done.append(item)
            if item == stop:
                break

    monkeypatch.setattr(echo.Command, "run", run)
    stop = "c"
    with pytest.raises(JobFailed, match="2 items are not done: every task left its loop"):
        echo.Command().delay()
    failed = JobRun.objects.get()
    assert (failed.status, failed.reason) == (Status.FAILED, "items")

    stop = ""
    failed.rerun(failed_only=True)
    assert done == list("abcde")
