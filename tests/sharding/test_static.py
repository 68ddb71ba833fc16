"""Shares of lists, ranges and iterators."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from array import array
from collections import UserList, deque
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from decimal import Decimal
from fractions import Fraction
from itertools import groupby
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs.exceptions import InvalidItems, ShardsDiffer
from cloudrun_jobs.execution.sharding.fingerprint import digest_of, key_hash, sample_positions, text_of
from cloudrun_jobs.models import ItemList
from cloudrun_jobs.spec.shares import Shares
from tests.jobs.management.commands import echo
from tests.jobs.models import Author
from tests.runs.conftest import request
from tests.sharding.items import ITEMS, Plain, Point
from tests.sharding.tasks import merged, shares, task

COUNTS = st.integers(2, 9)
SIZES = st.one_of(st.integers(0, 40), st.integers(1000, 5000))
KINDS: dict[str, Callable[[range], Iterable[int]]] = {
    "list": list,
    "tuple": tuple,
    "range": lambda items: items,
    "other sequence": UserList,
    "array": lambda items: array("l", items),
    "deque": deque,
    "iterator": iter,
    "generator": lambda items: (item for item in items),
    "dictionary view": lambda items: dict.fromkeys(items).keys(),
}


@given(kind=st.sampled_from(sorted(KINDS)), size=SIZES, count=COUNTS, start=st.integers(-5, 5))
def test_each_item_is_in_one_share(kind: str, size: int, count: int, start: int) -> None:
    """Task i gets every n-th item from the i-th on, in order, whatever the type of the items."""
    items = range(start, start + size)

    assert shares(count, lambda: KINDS[kind](items)) == [[*items[index::count]] for index in range(count)]


@given(size=st.integers(0, 200), count=COUNTS, modulus=st.integers(1, 50))
def test_each_item_is_in_one_share_by_key(size: int, count: int, modulus: int) -> None:
    """Items with the same key are in the same share, and each is in one."""
    found = shares(count, lambda: iter(range(size)), by=lambda item: item % modulus)
    keys = [{item % modulus for item in share} for share in found]

    assert sorted(item for share in found for item in share) == list(range(size))
    assert sum(map(len, keys)) == len(set().union(*keys))


def test_key_keeps_an_item_in_its_share() -> None:
    """By a key, an item stays in its share when the list changes, and nothing is compared."""
    run = request()
    before = [set(task(run, index, 3).shard(range(100), by=str)) for index in range(3)]
    after = [set(task(run, index, 3).shard(range(50, 120), by=str)) for index in range(3)]

    assert [share & {*range(50, 100)} for share in before] == [share & {*range(50, 100)} for share in after]
    assert not ItemList.objects.exists()


@pytest.mark.parametrize("items", [[], (), iter([])], ids=["list", "tuple", "iterator"])
def test_no_items(items: Iterable[Any]) -> None:
    """Without items, each task has an empty share."""
    assert shares(3, lambda: items) == [[], [], []]


def test_one_task_has_everything() -> None:
    """One task, and code outside a run, get all items, and nothing is recorded."""
    assert [*task(request(), 0, 1).shard(range(3))] == [0, 1, 2] == [*echo.Command().shard(range(3))]
    assert not ItemList.objects.exists()


def test_element_of_delay_many_has_everything() -> None:
    """A task of `delay_many()` has its own arguments, and so its own items, and gets all of them."""
    run = request(elements=2)

    assert [[*task(run, index, 2).shard(range(index, 3))] for index in range(2)] == [[0, 1, 2], [1, 2]]


def test_rerun_has_the_shares_of_the_first_run() -> None:
    """A rerun of failed tasks has their shares, by the first run's task count, and uses its lists."""
    first = request()
    for index in range(4):
        list(task(first, index, 4).shard(range(10)))
    again = request(shares=Shares(first.pk, 4, (1, 3)).encode())

    assert [[*task(again, index, 3).shard(range(10))] for index in range(3)] == [[1, 5, 9], [3, 7], []]
    with pytest.raises(ShardsDiffer):
        task(again, 0, 3).shard(range(11))
    assert ItemList.objects.get().run == first


def test_nothing_is_read_ahead() -> None:
    """An item that the next one invalidates, as those of groupby(), is complete when the job gets it."""
    found = merged(3, lambda: ((key, len([*group])) for key, group in groupby(range(100), lambda item: item // 7)))

    assert sorted(found) == [*((key, 7) for key in range(14)), (14, 2)]


def test_iterator_needs_little_memory() -> None:
    """The items of an iterator are not kept in memory."""
    share = task(request(), 0, 50).shard(f"item {number}" * 10 for number in range(50_000))
    tracemalloc.start()
    try:
        count = sum(1 for _ in share)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert count == 1000
    assert peak < 500_000


def test_job_may_change_its_items() -> None:
    """The job may change the items that it gets."""
    run = request()
    for index in range(3):
        for row in task(run, index, 3).shard(iter([{"number": number} for number in range(10)])):
            row["done"] = True

    assert ItemList.objects.get().count == 10


def changed(items: list[Any], *, at: int) -> list[Any]:
    return [*items[:at], "other", *items[at + 1 :]]


@pytest.mark.parametrize("kind", ["list", "generator"])
def test_other_number_of_items(kind: str) -> None:
    """A task with a different number of items fails, and the error has both numbers."""
    run, make = request(), KINDS[kind]
    list(task(run, 0, 3).shard(make(range(12))))
    message = "expected 12 items, as in the first task of the run, got 10. Pass the same items in the same order"

    with pytest.raises(ShardsDiffer, match=message):
        list(task(run, 1, 3).shard(make(range(10))))


@given(size=st.integers(1, 1000), data=st.data())
def test_one_other_item_of_a_thousand(size: int, data: st.DataObject) -> None:
    """In a list of at most 1000 items, every item is compared."""
    run, items = request(), list(range(size))
    task(run, 0, 2).shard(items)
    other = changed(items, at=data.draw(st.integers(0, size - 1)))

    with pytest.raises(
        ShardsDiffer,
        match=f"expected the items of the first task of the run in their order, got {size} that differ",
    ):
        task(run, 1, 2).shard(other)


@pytest.mark.parametrize("at", [0, 1999])
def test_ends_of_a_long_list_count(at: int) -> None:
    """The first and the last item of a list of any length are compared."""
    run, items = request(), list(range(2000))
    task(run, 0, 2).shard(items)

    with pytest.raises(ShardsDiffer):
        task(run, 1, 2).shard(changed(items, at=at))


@pytest.mark.parametrize("at", [0, 1, 2, 4, 8, 16, 1024, 2999])
@pytest.mark.parametrize("count", [2, 7])
def test_sample_of_an_iterator(at: int, count: int) -> None:
    """Of an iterator, the items at 0, 1, 2, 4, 8 ... and the last one are compared, at its end."""
    run, items = request(), list(range(3000))
    list(task(run, 0, count).shard(iter(items)))
    share = task(run, 1, count).shard(iter(changed(items, at=at)))

    with pytest.raises(ShardsDiffer):
        list(share)


def test_sample_is_even() -> None:
    """Of more than 1000 items, 64 evenly spaced ones are compared, from the first to the last."""
    positions = list(sample_positions(1001))

    assert (positions[0], positions[-1], len(set(positions))) == (0, 1000, 64)


def test_calls_are_compared_by_their_order() -> None:
    """The second call of a task is compared with the second call of the first task."""
    run = request()
    for index in range(2):
        job = task(run, index, 2)
        assert ([*job.shard(range(5))], [*job.shard(["a", "b"])]) == ([*range(5)[index::2]], ["ab"[index]])
    job = task(run, 0, 2)
    job.shard(range(5))

    with pytest.raises(ShardsDiffer, match=r"shard\(\) call 2: expected 2 items"):
        job.shard(range(5))


def begun() -> Iterator[int]:
    generator = (item for item in range(3))
    next(generator)
    return generator


def ended() -> Iterator[int]:
    generator = (item for item in range(3))
    list(generator)
    return generator


async def asynchronous() -> Any:
    yield 1


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("items", "by", "message"),
    [
        ("text", None, r"got str. Put a single item into a list"),
        (b"text", None, r"got bytes"),
        (5, None, r"expected a list, range, iterator or queryset, got int\."),
        (None, None, r"got NoneType"),
        ({1, 2}, None, r"the same order in every task, got set. Pass sorted\(\.\.\.\) of it"),
        (frozenset(), None, r"got frozenset"),
        ({1: 2}, None, r"got dict. Pass list\(\.\.\.\) of its keys"),
        (begun(), None, r"expected a new generator, got <genexpr>\(\), which has begun"),
        (ended(), None, r"which has ended"),
        (asynchronous(), None, r"\[item async for item in \.\.\.\]"),
        (Author.objects, None, r"got a manager. Pass manager.all\(\)"),
        ([1], "name", r"expected a function, .* got 'name'. Pass operator.itemgetter"),
        ([1], 3, r"by: expected a function of an item, or the name of a field of a queryset, got 3"),
    ],
)
def test_invalid_items(count: int, items: Any, by: Any, message: str) -> None:
    """Items that cannot be divided are rejected at the call, even with one task."""
    with pytest.raises(InvalidItems, match=message):
        task(request(), 0, count).shard(items, by=by)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("key", [None, True, b"x", float("nan"), Decimal("sNaN"), (1, 2), date(2026, 1, 1)])
def test_invalid_keys(count: int, key: Any) -> None:
    """A key that is neither text, a number nor a UUID is rejected, with the index of its item."""
    with pytest.raises(InvalidItems, match=r"as the key of item 1, got .*\(\w+\)\. Filter the items, or pass"):
        list(task(request(), 0, count).shard(["a", "b"], by=lambda item: item if item == "a" else key))


def test_set_by_key() -> None:
    """By a key, a set can be split."""
    assert sorted(merged(3, lambda: set(range(20)), by=str)) == list(range(20))


def test_equal_numbers_are_equal_keys() -> None:
    """Equal numbers of different types are in the same share; text and UUIDs differ from them."""
    numbers = [10**20, float(10**20), Decimal(10**20), Fraction(10**20)]

    assert len({key_hash(number) for number in numbers}) == 1
    assert len({key_hash(key) for key in (1, "1", UUID(int=1))}) == 3


PROGRAM = """
import django
django.setup()
from cloudrun_jobs.execution.sharding.fingerprint import digest_of, key_hash, text_of
from tests.sharding.items import ITEMS
print(digest_of(map(text_of, ITEMS)), key_hash("é"), key_hash(-1.5), key_hash("\\ud800"))
"""


def test_digests_are_the_same_in_every_process() -> None:
    """Digests and hashes do not depend on the salt of Python's hash() or on addresses."""
    found = set()
    for seed in ("1", "2"):
        variables = {"PYTHONHASHSEED": seed, "DJANGO_SETTINGS_MODULE": "tests.settings"}
        options: dict[str, Any] = {"env": {**os.environ, **variables}, "capture_output": True, "text": True}
        found.add(subprocess.run([sys.executable, "-c", PROGRAM], **options, check=True, timeout=60).stdout)

    assert len(found) == 1
    assert found.pop().split()[0] == digest_of(map(text_of, ITEMS))


@pytest.mark.parametrize(
    ("item", "other"),
    [
        (1, "1"),
        (1, 1.0),
        ("a", b"a"),
        ([1], (1,)),
        ({"a": 1}, {"a": 2}),
        (Point(1, frozenset()), Point(2, frozenset())),
    ],
)
def test_different_items_have_different_texts(item: Any, other: Any) -> None:
    """Items that differ in type or value have different texts."""
    assert text_of(item) != text_of(other)


def test_item_that_contains_itself() -> None:
    """An item may contain itself."""
    tree: list[Any] = [1]
    tree.append(Point(tree, frozenset()))

    assert text_of(tree).startswith("builtins.list(1, tests.sharding.items.Point(")


def test_objects_without_a_representation() -> None:
    """Objects whose class has no __repr__() are compared by class, model instances by primary key."""
    assert text_of(Plain()) == "tests.sharding.items.Plain"
    assert text_of(Author(pk=3, name="Ada")) == text_of(Author(pk=3, name="Grace")) != text_of(Author(pk=4))
