"""Invalid input of `claim()` and `item()` raises an error with a hint, and nothing starts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import date, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

import pytest
from django.core.management import call_command
from django.db import transaction
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs.exceptions import InvalidItems
from cloudrun_jobs.execution.sharding import items as sources
from cloudrun_jobs.execution.sharding.items import MAX_ITEM_BYTES, Hashes
from cloudrun_jobs.models import ItemChunk, ItemList, JobRun, Status
from tests.execution.claiming import task
from tests.jobs.management.commands import outcome
from tests.runs.conftest import request
from tests.servers.routing import records_in


class Color(StrEnum):
    RED = "red"


def begun() -> Iterator[int]:
    generator = (number for number in range(3))
    next(generator)
    return generator


def ended() -> Iterator[int]:
    generator = (number for number in range(3))
    list(generator)
    return generator


async def asynchronous() -> Any:
    yield 1


@pytest.fixture(autouse=True)
def database(sqlite: str, settings: Any, django_db_blocker: Any) -> Iterator[str]:
    """Store the records in one database: the checks are the same for all."""
    with records_in(sqlite, settings, django_db_blocker):
        yield sqlite


@pytest.fixture
def run() -> JobRun:
    return request("outcome")


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ({1, 2}, r"got set\. Its order differs from process to process\. Pass `sorted\(items\)`"),
        (frozenset("ab"), "got frozenset"),
        ({"a": 1}.keys(), "got dict_keys"),
        ({"a": 1}, r"got dict\. Pass a list of its keys"),
        ("abc", "got str. Pass a list of items"),
        (b"abc", "got bytes"),
        (7, "got int. Pass a list, an iterator or a queryset"),
        (None, "got NoneType"),
        (asynchronous(), "got async_generator"),
        (begun(), "got a generator that has begun"),
        pytest.param(ended(), "got a generator that has begun", id="ended"),
        (
            JobRun.objects.all(),
            r'got a queryset of model instances\. Pass primary keys: `queryset.values_list\("pk"',
        ),
        (JobRun.objects.raw("SELECT 1"), "got a queryset of model instances"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_sources_that_cannot_be_shared_are_refused(run: JobRun, items: Any, message: str) -> None:
    """The call raises before the first iteration."""
    with task(run) as job, pytest.raises(InvalidItems, match=message):
        job.claim(items)

    assert not ItemList.objects.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "expected batch to be a whole number from 1 to 2147483647, got 0"),
        ({"batch": 1.5}, "expected batch"),
        ({"batch": True}, "expected batch"),
        ({"batch": 2**31}, "expected batch"),
        ({"lease": 0}, "expected lease to be from 1 to 2147483647 seconds, got 0"),
        ({"lease": timedelta(milliseconds=10)}, "expected lease"),
        ({"lease": float("nan")}, "expected lease"),
        ({"lease": float("inf")}, "expected lease"),
        ({"lease": "60"}, "expected lease to be a number of seconds or a timedelta, got '60'"),
        ({"lease": True}, "expected lease to be a number of seconds or a timedelta, got True"),
        ({"item_retries": -1}, "expected item_retries to be a whole number from 0 to 2147483647, got -1"),
        ({"item_retries": None}, "expected item_retries"),
    ],
)
def test_invalid_options_are_refused(run: JobRun, options: dict[str, Any], message: str) -> None:
    """The error names the option; it is the same outside a run."""
    with task(run) as job, pytest.raises(InvalidItems, match=message):
        job.claim([1], **options)
    with pytest.raises(InvalidItems, match=message):
        outcome.Command().claim([1], **options)

    assert not ItemList.objects.exists()


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ((1, 2), r"a tuple at index 1\. Pass a list: `list\(item\)`"),
        (date(2026, 1, 1), r"a date at index 1\. Pass its text: `str\(item\)`"),
        (UUID(int=1), "a UUID at index 1"),
        (Decimal(1), "a Decimal at index 1"),
        (
            JobRun(pk=UUID(int=1)),
            r'a JobRun at index 1\. Pass primary keys: `queryset.values_list\("pk", flat=True\)`',
        ),
        (Color.RED, "a Color at index 1"),
        ({1: 2}, "a dictionary with keys that are not text at index 1"),
        ({"a\0": 2}, "text with a NUL character at index 1"),
        ([{"a": (1,)}], "a tuple at index 1"),
        (float("nan"), "the number nan at index 1"),
        (float("-inf"), "the number -inf at index 1"),
        (-0.0, "the number -0.0 at index 1"),
        (1e16, "at index 1"),
        (2**63, "an integer of more than 64 bits at index 1"),
        ("a\0b", "text with a NUL character at index 1. Remove it"),
        ("\ud800", "text with a lone surrogate at index 1"),
        (b"a", "a bytes at index 1"),
        (json.loads("[" * 31 + "]" * 31), "a value of more than 30 levels at index 1"),
        ("x" * MAX_ITEM_BYTES, f"at most {MAX_ITEM_BYTES} bytes, got {MAX_ITEM_BYTES + 2} at index 1"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_items_that_json_changes_are_refused(run: JobRun, item: Any, message: str) -> None:
    """The error names the index and the remedy, and the list is not complete."""
    with task(run) as job, pytest.raises(InvalidItems, match=message):
        job.claim(["fine", item])

    assert ItemList.objects.get().count is None


@pytest.mark.parametrize("batch", [1, 2, 10])
def test_duplicates_are_refused(run: JobRun, batch: int) -> None:
    """The error names the first two indexes; 1, True and "1" are different items."""
    items = [0, {"a": 1, "b": 2}, 1, True, "1", 1.0, {"b": 2, "a": 1}, 0]
    with task(run) as job, pytest.raises(InvalidItems, match=r"the same item at the indexes \d and \d") as raised:
        job.claim(items, batch=batch)

    assert "indexes 0 and 7" in str(raised.value) or "indexes 1 and 6" in str(raised.value)
    assert ItemList.objects.get().count is None


def test_equal_hashes_are_no_duplicates(run: JobRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Different items with the same hash are handed out."""
    monkeypatch.setattr(Hashes, "add", lambda self, text: self._values.append(7))
    with task(run) as job:
        assert list(job.claim([1, 2])) == [1, 2]


@given(st.lists(st.integers(0, 30)))
def test_repeated_hashes_are_found(numbers: list[int]) -> None:
    """For each value that occurs again, its first two indexes are found, in any number of passes."""
    hashes = Hashes()
    for number in numbers:
        hashes.add(str(number))
    sources.HASHES_PER_PASS = 5
    try:
        found = set(hashes.repeated())
    finally:
        sources.HASHES_PER_PASS = 250_000

    places: dict[int, list[int]] = {}
    for index, number in enumerate(numbers):
        places.setdefault(number, []).append(index)
    assert found == {(where[0], where[1]) for where in places.values() if len(where) > 1}


def test_long_items_make_small_chunks(run: JobRun) -> None:
    """A chunk ends before it is longer than the longest item may be."""
    items = [f"{number}" + "x" * (MAX_ITEM_BYTES // 3) for number in range(5)]
    with task(run) as job:
        assert list(job.claim(items, batch=100)) == items

    assert sorted(ItemChunk.objects.values_list("size", flat=True)) == [1, 2, 2]


def test_a_query_set_of_values_is_handed_out(run: JobRun) -> None:
    """Primary keys and dictionaries come from a queryset, which is not kept in memory."""
    request("echo")
    commands = JobRun.objects.order_by("command")
    with task(run) as job:
        assert list(job.claim(commands.values_list("command", flat=True))) == ["echo", "outcome"]
        assert list(job.claim(commands.values("command"))) == [{"command": "echo"}, {"command": "outcome"}]
        with pytest.raises(InvalidItems, match=r"a UUID at index 0\. Pass its text"):
            job.claim(commands.values_list("pk", flat=True))


def test_two_loops_at_once_are_refused(run: JobRun) -> None:
    """The second call raises while the first loop is open."""
    with task(run) as job:
        for _ in job.claim([1, 2]):
            with pytest.raises(InvalidItems, match="another loop over claim\\(\\) is open"):
                job.claim([3])
        assert list(job.claim([4])) == [4]


def test_a_transaction_is_refused(run: JobRun, database: str) -> None:
    """A claim in the job's own transaction would be hidden from the other tasks."""
    with task(run) as job:
        with transaction.atomic(using=database), pytest.raises(InvalidItems, match="a transaction is open"):
            job.claim([1])
        loop = job.claim([1, 2])
        with transaction.atomic(using=database), pytest.raises(InvalidItems, match="a transaction is open"):
            next(loop)
        item = next(loop)
        with (
            transaction.atomic(using=database),
            pytest.raises(InvalidItems, match="a transaction is open"),
            job.item(item, atomic=database),
        ):
            pass


@pytest.mark.parametrize("batch", [1, 3])
def test_an_item_in_a_transaction_is_refused(run: JobRun, database: str, batch: int) -> None:
    """The item would stay done after a rollback of its writes. The error says what to use instead."""
    with task(run) as job:
        loop = job.claim([1, 2, 3], batch=batch)
        next(loop)
        hint = rf"Use `with self\.item\(item, atomic='{database}'\)` in place of it"
        with transaction.atomic(using=database), pytest.raises(InvalidItems, match=hint), job.item(1):
            pass
        with (
            transaction.atomic(using=database),
            pytest.raises(InvalidItems, match=r"Leave the surrounding atomic\(\)"),
            job.item(1, atomic=database),
        ):
            pass
        with transaction.atomic(using=database), pytest.raises(InvalidItems, match="a transaction is open"):
            next(loop)
        assert job.claims.left == 3
        with job.item(1), transaction.atomic(using=database):
            pass
        assert list(loop) == [2, 3]


def test_a_transaction_that_an_item_leaves_open_is_refused(run: JobRun, database: str) -> None:
    """The item has failed: its writes are rolled back when the task ends."""

    def work(job: outcome.Command, opened: ExitStack) -> None:
        for item in job.claim([1, 2], batch=2):
            with job.item(item):
                opened.enter_context(transaction.atomic(using=database))

    with (
        pytest.raises(InvalidItems, match="a transaction is open, which may roll back"),
        task(run) as job,
        ExitStack() as opened,
    ):
        work(job, opened)

    assert ItemChunk.objects.get(size=1).tries == 1


def test_an_event_loop_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """In `async def run()`, the error names `sync_to_async`, which works."""
    from asgiref.sync import sync_to_async

    found = []

    async def work(self: outcome.Command, **options: Any) -> None:
        with pytest.raises(InvalidItems, match=r"await sync_to_async\(function\)\(\)"):
            self.claim([1])
        found.extend(await sync_to_async(lambda: list(self.claim([1, 2])))())
        with pytest.raises(InvalidItems, match=r"await sync_to_async\(lambda: self.claims\)\(\)"):
            _ = self.claims

    monkeypatch.setattr(outcome.Command, "run", work)
    call_command(outcome.Command(), "none")

    assert found == [1, 2]


def test_item_needs_the_current_item(run: JobRun) -> None:
    """item() outside a loop, of another item, or twice for the same one is refused."""
    with task(run) as job:
        with pytest.raises(InvalidItems, match="no loop over claim"), job.item(1):
            pass
        loop = job.claim([1, 2])
        assert next(loop) == 1
        with pytest.raises(InvalidItems, match="expected the current item"), job.item(2):
            pass
        with job.item(1):
            pass
        with pytest.raises(InvalidItems, match="the item 1 has ended already"), job.item(1):
            pass
        next(loop)
        with pytest.raises(InvalidItems, match=r"expected the current item.* take all items"), job.item(1):
            pass


def test_item_after_the_loop_is_refused(run: JobRun) -> None:
    """list() takes all items from the loop before the first item()."""
    with task(run) as job:
        for number in list(job.claim([1, 2])):
            with (
                pytest.raises(InvalidItems, match=r"the loop over claim\(\) has ended.* list\(\) and"),
                job.item(number),
            ):
                pass


def test_atomic_names_the_database_of_the_records(run: JobRun) -> None:
    """The records are not in the default database here, so `atomic=True` is rejected."""
    with (
        task(run) as job,
        pytest.raises(InvalidItems, match="expected atomic to name the database of the run records"),
    ):
        job.item(1, atomic=True)


def test_invalid_items_fail_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run fails with InvalidItems, and nothing is handed out."""
    monkeypatch.setattr(outcome.Command, "run", lambda self, **options: list(self.claim([1, 1])))
    with pytest.raises(InvalidItems):
        call_command(outcome.Command(), "none")

    run = JobRun.objects.get()
    assert (run.status, run.error_class, run.items_total) == (Status.FAILED, "InvalidItems", None)
