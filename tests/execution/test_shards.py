"""`shard()` on each kind of database, by tasks that run at the same time."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any
from uuid import uuid4

import pytest
from django.db import connections
from django.db.models import QuerySet
from pytest_django import Settings

from cloudrun_jobs import JobFailed
from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.execution.active import ActiveRun
from cloudrun_jobs.execution.attempt import Attempt
from cloudrun_jobs.execution.sharding import lists, querysets
from cloudrun_jobs.models import ItemList, JobRun, TaskRun
from tests.emulator.cloud import Cloud, job
from tests.emulator.fixtures import cloudrun_emulator, cloudrun_emulator_options
from tests.jobs.management.commands import echo, share
from tests.jobs.models import Author, Book, Country, Flight, Token
from tests.locks.workers import database_settings
from tests.runs.conftest import begin, request
from tests.sharding.tasks import tables

__all__ = ["cloudrun_emulator", "cloudrun_emulator_options"]

ROOT = Path(__file__).resolve().parents[2]
TASKS = 4


@pytest.fixture(autouse=True)
def _rows(database: str) -> Iterator[None]:
    with tables(database):
        authors = Author.objects.bulk_create(Author(name=name) for name in ("Ada", "Bo", "Cy"))
        authors = list(Author.objects.all())  # MySQL does not return their keys.
        books = Book.objects.bulk_create(
            Book(pk=number + 1, title=f"T{number % 5}", isbn=f"I{number}", author=authors[number % 3])
            for number in range(50)
        )
        for number, author in enumerate(authors, start=1):
            author.translations.set(books[::number])
        Token.objects.bulk_create(Token() for _ in range(50))
        # In the order of some collations these are not in the order of their bytes.
        Country.objects.bulk_create(Country(code=f"{'aBÄ_'[number % 4]}{number}") for number in range(50))
        Flight.objects.bulk_create(Flight(airline="AB"[number % 2], number=number) for number in range(50))
        yield


def all_tasks(rows: Callable[[], QuerySet[Any, Any]], by: str | None) -> list[Any]:
    """Return the shares of all tasks, which call shard() at the same time."""
    run, barrier = request(), Barrier(TASKS)

    def work(index: int) -> list[Any]:
        try:
            with begin(run, execution=f"echo-{run.pk}", index=index, count=TASKS) as attempt:
                assert isinstance(attempt, Attempt)
                command = echo.Command()
                command._active = ActiveRun(run)
                command._active.attempt = attempt
                barrier.wait(30)
                return list(command.shard(rows(), by=by))
        finally:
            connections.close_all()  # This thread's.

    with ThreadPoolExecutor(TASKS) as pool:
        return [row for share in pool.map(work, range(TASKS)) for row in share]


ROWS: dict[str, tuple[Callable[[], QuerySet[Any, Any]], str | None]] = {
    "numbers": (Book.objects.all, None),
    "aggregated": (lambda: Book.objects.filter(translators__name__in=["Ada", "Bo"]).distinct(), None),
    "UUIDs": (Token.objects.all, None),
    "text": (lambda: Country.objects.order_by("-pk"), None),
    "composite": (Flight.objects.all, None),
    "row number": (lambda: Book.objects.order_by("author", "-title").reverse(), None),
    "slice": (lambda: Book.objects.order_by("-isbn")[5:45], None),
    "field": (Book.objects.all, "author__name"),
    "field of slice": (lambda: Book.objects.order_by("-isbn")[5:45], "title"),
}


def test_each_row_is_in_one_share(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By ranges, by number and by key, each row is in one share."""
    monkeypatch.setattr(querysets, "MAX_DIGESTED_ITEMS", 45)
    monkeypatch.setattr(querysets, "KEY_BATCH_SIZE", 5)
    monkeypatch.setattr(lists, "POLL_MAXIMUM_SECONDS", 0.2)
    found = {name: Counter(all_tasks(*given)) for name, given in ROWS.items()}

    assert found == {name: Counter(rows()) for name, (rows, _) in ROWS.items()}
    assert ItemList.objects.filter(bounds__isnull=True).count() == 3
    assert ItemList.objects.filter(bounds__isnull=False).count() == 4


@pytest.fixture
def _deployed(database: str, cloudrun_emulator: Emulator, settings: Settings) -> None:
    options = {"endpoint": cloudrun_emulator.grpc, "runs_per_minute": 10_000}
    place = {"PROJECT": "acme", "REGION": "europe-west4"}
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "production", **place, "OPTIONS": options}
    variables = {
        "PYTHONPATH": str(ROOT),
        "DJANGO_SETTINGS_MODULE": "tests.runs.settings",
        "RUNS_DATABASE": json.dumps(database_settings(database)),
    }
    declared = job(sys.executable, "-m", "django", env=variables, retries=1, task_count=3)
    Cloud(cloudrun_emulator).create(declared, "share-production")


@pytest.mark.usefixtures("_deployed")
@pytest.mark.parametrize("database", ["postgres"], indirect=True)
class TestInContainers:
    """Three tasks over ten items, in processes."""

    def test_numbers(self) -> None:
        """The tasks have four, three and three numbers, and record the list."""
        operation = share.Command().delay("numbers")

        assert operation.result(timeout=60) == [[0, 3, 6, 9], [1, 4, 7], [2, 5, 8]]
        assert ItemList.objects.get().count == 10

    def test_killed_writer(self) -> None:
        """The task that finds the ranges is killed; its retry does so at once, and each row is in one share."""
        Token.objects.all().delete()
        tokens = Token.objects.bulk_create(Token(id=uuid4()) for _ in range(10))
        operation = share.Command().delay("rows, killed")
        shares = operation.result(timeout=50)  # Less than the lease.

        assert sorted(map(len, shares)) == [3, 3, 4]
        assert sorted(row for each in shares for row in each) == sorted(str(token.pk) for token in tokens)
        assert TaskRun.objects.filter(attempt=1).exists()

    def test_other_numbers(self) -> None:
        """A task with more items than the first one fails, and so does the run."""
        operation = share.Command().delay("other numbers")
        error = operation.exception(timeout=60)

        assert isinstance(error, JobFailed)
        assert JobRun.objects.get().error_class.endswith("ShardsDiffer")
        assert "items, as in the first task of the run" in JobRun.objects.get().error_message
