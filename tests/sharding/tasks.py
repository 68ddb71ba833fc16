"""The tasks of a run, as `shard()` sees them, in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from django.apps import apps
from django.db import connections

from cloudrun_jobs.execution.active import ActiveRun
from cloudrun_jobs.execution.attempt import Attempt
from cloudrun_jobs.models import JobRun, TaskRun
from tests.jobs.management.commands import echo
from tests.runs.conftest import request


def task(run: JobRun, index: int, count: int) -> echo.Command:
    """Return the command of a task during `run()`."""
    job = echo.Command()
    job._active = ActiveRun(run)
    row = TaskRun(run=run, index=index, worker=uuid4())
    job._active.attempt = Attempt(run, row, task_count=count, has_retries=False, scope="execution")
    return job


def shares(count: int, items: Callable[[], Iterable[Any]], by: Any = None) -> list[list[Any]]:
    """Return the share of each task of a run, each with its own copy of the items."""
    run = request()
    return [list(task(run, index, count).shard(items(), by=by)) for index in range(count)]


def merged(count: int, items: Callable[[], Iterable[Any]], by: Any = None) -> list[Any]:
    """Return the items of all shares together."""
    return [item for share in shares(count, items, by) for item in share]


@contextmanager
def tables(alias: str) -> Iterator[None]:
    """Create the tables of the test models in a database."""
    models = list(apps.get_app_config("jobs").get_models())
    with connections[alias].schema_editor() as editor:
        for model in models:
            editor.create_model(model)
    try:
        yield
    finally:
        with connections[alias].schema_editor() as editor:
            for model in reversed(models):
                editor.delete_model(model)
