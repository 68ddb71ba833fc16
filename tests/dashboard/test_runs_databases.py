"""The page of a run reads the same from other databases than SQLite, on which the other tests run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connections
from pytest_django import Settings

from cloudrun_jobs.dashboard.runs.details import RunDetails, read_run
from cloudrun_jobs.dashboard.runs.excerpts import whole_text
from cloudrun_jobs.models import Status, TaskRun
from tests.dashboard.run_pages import Notices, record_run
from tests.servers.routing import records_in

LONG = "日\u202e" * 20_000


@pytest.fixture(params=["postgres", "mariadb"], autouse=True)
def _records(request: pytest.FixtureRequest, settings: Settings, django_db_blocker: Any) -> Iterator[None]:
    """Store the records in one kind of database."""
    alias = request.getfixturevalue(request.param)
    with records_in(alias, settings, django_db_blocker):
        yield
        connections[alias].close()


def details_of(**values: Any) -> RunDetails:
    run = read_run(record_run("echo", tasks=3, **values).pk)
    assert run is not None
    return RunDetails(Notices(), run)


@pytest.mark.parametrize(
    ("values", "field", "start", "whole"),
    [
        ({"error_message": LONG}, "error", LONG[:2001], LONG),
        ({"traceback": "two\nlines"}, "traceback", "two\nlines", "two\nlines"),
        ({"result": {"a": [1]}}, "result", '{\n  "a": [\n    1\n  ]\n}', '{\n  "a": [\n    1\n  ]\n}'),
        ({"result": "text"}, "result", "text", "text"),
        ({"result": False}, "result", "false", "false"),
        ({"argv": ["echo", "--note=a b"]}, "arguments", "echo '--note=a b'", "echo '--note=a b'"),
        ({"overrides": {"tasks": 2}}, "overrides", '{\n  "tasks": 2\n}', '{\n  "tasks": 2\n}'),
    ],
)
def test_texts(values: dict[str, Any], field: str, start: str, whole: str) -> None:
    """The database cuts texts, and returns JSON as text."""
    details = details_of(**values)
    excerpt = details.excerpt(field)

    assert excerpt is not None
    assert (excerpt.text, whole_text(details.run.pk, field)) == (start, whole)


def test_long_result() -> None:
    """A result of a megabyte is cut by the database."""
    details = details_of(result=[LONG])
    excerpt = details.excerpt("result")

    assert excerpt is not None
    assert len(excerpt.text) <= 20_001
    assert excerpt.rest_url
    assert str(whole_text(details.run.pk, "result")).count("\u202e") == 20_000


def test_tasks() -> None:
    """Failed tasks come first, and the progress is that of all."""
    details = details_of(status=Status.FAILED, task_count=3)
    tasks = TaskRun.objects.filter(run=details.run.pk)
    tasks.filter(index=2).update(status=Status.FAILED, error_message=LONG, result=[1], argv=["echo", "x"])
    tasks.update(progress_done=2, progress_total=4, progress_text="rows")
    details = RunDetails(Notices(), read_run(details.run.pk) or details.run)
    page, bar = details.tasks, details.progress

    assert [row.task.index for row in page.rows] == [2, 0, 1]
    assert [bool(row.result_url) for row in page.rows] == [True, False, False]
    assert (bar and (bar.text, bar.message, bar.percent)) == ("6 of 12", "rows", 50)
