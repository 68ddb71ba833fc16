"""Shares of querysets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connection, models
from django.db.models import Count, F, QuerySet, Window
from django.db.models.functions import Lower, RowNumber
from django.db.models.lookups import GreaterThan
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs.exceptions import InvalidItems, ShardsDiffer
from cloudrun_jobs.execution.sharding import querysets
from cloudrun_jobs.models import ItemList
from cloudrun_jobs.spec.shares import Shares
from tests.jobs.models import Author, Biography, Book, Country, Flight, Measurement, Novel, Token
from tests.runs.conftest import request
from tests.sharding.tasks import merged, shares, task

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def books(_records: None) -> None:
    """Add 23 books, with gaps between their primary keys, of four authors and with up to two translators."""
    authors = Author.objects.bulk_create(Author(name=name) for name in ("Ada", "Bo", "Cy", "Di"))
    numbers = [number**2 for number in range(23)]
    books = Book.objects.bulk_create(
        Book(
            pk=number + 1, title=f"T{number % 5}", pages=number % 7, isbn=f"i{number}", author=authors[number % 4]
        )
        for number in numbers
    )
    translations = Book.translators.through
    translations.objects.bulk_create(
        translations(book=book, author=author)
        for place, book in enumerate(books)
        for author in authors[: place % 3]
    )


RANGES: dict[str, Callable[[], QuerySet[Any, Any]]] = {
    "unordered": lambda: Book.objects.all(),
    "by key": lambda: Book.objects.order_by("pk"),
    "by key, descending": lambda: Book.objects.order_by("-id"),
    "by key as an expression": lambda: Book.objects.order_by(F("id").desc()),
    "by key, then more": lambda: Book.objects.order_by("pk", "title"),
    "reversed": lambda: Book.objects.order_by("pk").reverse(),
    "filtered": lambda: Book.objects.filter(pages__gt=2),
    "repeated by a join": lambda: Book.objects.filter(translators__name__in=["Ada", "Bo"]).order_by("pk"),
    "repeated, then distinct": lambda: Book.objects.filter(translators__name__in=["Ada", "Bo"]).distinct(),
    "aggregated": lambda: Book.objects.annotate(n=Count("translators")).filter(n__gt=0),
    "aggregated values with the key": lambda: Book.objects.values("pk").annotate(n=Count("translators")),
    "values of aggregated": lambda: Book.objects.annotate(n=Count("translators")).values("isbn", "n"),
    "values": lambda: Book.objects.values("isbn", "translators__name"),
    "list of values": lambda: Book.objects.values_list("isbn", "pages"),
    "flat": lambda: Book.objects.values_list("isbn", flat=True),
    "related": lambda: Book.objects.select_related("author").prefetch_related("translators").only("author"),
    "empty": lambda: Book.objects.none(),
    "without rows": lambda: Book.objects.filter(pages=99),
}
ROWS: dict[str, Callable[[], QuerySet[Any, Any]]] = {
    "by field": lambda: Book.objects.order_by("title"),
    "by field, descending": lambda: Book.objects.order_by("-title"),
    "by field, reversed": lambda: Book.objects.order_by("title", "-pages").reverse(),
    "by expression": lambda: Book.objects.order_by(Lower("title").desc(), F("pages")),
    "by expression, reversed": lambda: Book.objects.order_by(Lower("title"), F("pages").desc()).reverse(),
    "by unique field": lambda: Book.objects.order_by("isbn"),
    "by relation with an order": lambda: Book.objects.order_by("author"),
    "by field of a relation": lambda: Book.objects.order_by("author__name"),
    "order of the model": lambda: Author.objects.all(),
    "by annotation": lambda: Book.objects.annotate(low=Lower("title")).order_by("-low"),
    "by aggregate": lambda: Book.objects.annotate(n=Count("translators")).order_by("n", "isbn"),
    "distinct": lambda: Book.objects.filter(translators__name__in=["Ada", "Bo"]).order_by("title").distinct(),
    "values": lambda: Book.objects.order_by("title").values("pages"),
    "flat": lambda: Book.objects.order_by("title").values_list("title", flat=True),
    "sliced": lambda: Book.objects.order_by("pk")[3:20],
    "sliced by unique field": lambda: Book.objects.order_by("-isbn")[:10],
    "sliced beyond the end": lambda: Book.objects.order_by("title", "pk")[20:50],
    "values of aggregated": lambda: Book.objects.annotate(n=Count("translators")).order_by("isbn").values("n"),
    "distinct and annotated": lambda: (
        Book.objects.filter(translators__name__in=["Ada", "Bo"])
        .annotate(low=Lower("title"))
        .order_by("low")
        .distinct()
    ),
    "distinct with a relation": lambda: (
        Book.objects.filter(translators__name__in=["Ada", "Bo"])
        .annotate(by=F("author__name"))
        .order_by("author__name")
        .distinct()
    ),
    "window": lambda: Book.objects.annotate(row=Window(RowNumber(), order_by="pk")).order_by("pk"),
    "without rows": lambda: Book.objects.filter(pages=99).order_by("title"),
    "nothing": lambda: Book.objects.none().order_by("title"),
}


def plain(rows: Any) -> list[str]:
    """Return the rows in a comparable form, with their annotations."""
    return [
        repr({name: value for name, value in vars(row).items() if name[0] != "_"} if hasattr(row, "pk") else row)
        for row in rows
    ]


@pytest.mark.parametrize(("name", "count"), [*((name, 3) for name in RANGES), ("unordered", 40), ("values", 40)])
def test_each_row_is_in_one_share_by_range(name: str, count: int) -> None:
    """A queryset that is ordered by its primary key, or not at all, is split by ranges of the key."""
    rows, found = RANGES[name](), [*map(plain, shares(count, RANGES[name]))]
    expected = plain(rows if rows.ordered else rows.order_by("pk"))

    assert sorted(row for share in found for row in share) == sorted(expected)
    assert found == [[row for row in expected if row in share] for share in found]
    assert ItemList.objects.get().bounds is not None


@pytest.mark.parametrize(
    ("name", "count", "limit"),
    [
        *((name, 3, 5) for name in ROWS),
        *((name, 40, 1000) for name in ("by field", "by aggregate", "sliced", "window")),
    ],
)
def test_each_row_is_in_one_share_by_number(
    name: str, count: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any other queryset is split by row number, in its order, whether all or some rows are compared."""
    monkeypatch.setattr(querysets, "MAX_DIGESTED_ITEMS", limit)
    found = merged(count, ROWS[name])

    assert plain(found) == plain(ROWS[name]())
    assert ItemList.objects.get().bounds is None


@given(
    numbers=st.sets(st.integers(-(2**63), 2**63 - 1), max_size=30),
    count=st.integers(2, 40),
    order=st.sampled_from([(), ("pk",), ("-pk",), ("pages",), ("-pages", "title"), ("-isbn",)]),
    by=st.sampled_from([None, "pages", lambda book: book.title]),
    limit=st.sampled_from([3, 1000]),
)
def test_any_keys_and_any_order(
    numbers: set[int], count: int, order: tuple[str, ...], by: Any, limit: int
) -> None:
    """For any keys, number of tasks, order and rule, each row is in one share."""
    Book.objects.all().delete()
    Book.objects.bulk_create(
        Book(pk=number, isbn=str(number), title=f"T{number % 3}", pages=number % 5) for number in numbers
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(querysets, "MAX_DIGESTED_ITEMS", limit)
        found = merged(count, lambda: Book.objects.order_by(*order), by)

    assert Counter(book.pk for book in found) == Counter(numbers)


def is_split_by_range() -> bool:
    return ItemList.objects.get().bounds is not None


def test_shares_have_nearly_the_same_size() -> None:
    """The numbers of rows in the ranges differ by one at most, whatever the gaps between the keys."""
    assert sorted({len(share) for share in shares(4, Book.objects.all)}) == [5, 6]


def test_repeated_rows_do_not_unbalance_the_shares() -> None:
    """The ranges of distinct rows have nearly the same size, however often a join repeats them."""
    for author in Author.objects.all():
        author.translations.set(Book.objects.all())
    rows = Book.objects.filter(translators__name__in=["Ada", "Bo", "Cy"]).distinct()

    assert max(len(share) for share in shares(4, lambda: rows)) <= 7


@pytest.mark.parametrize("model", [Token, Country, Measurement, Novel])
def test_keys_of_other_types(model: type[models.Model]) -> None:
    """Keys that are UUIDs, text, times or relations are split by range."""
    keys: dict[type[models.Model], Callable[[int], dict[str, Any]]] = {
        Token: lambda number: {"id": uuid5(NAMESPACE_URL, str(number))},
        Country: lambda number: {"code": f"ü{number}'%"},
        Measurement: lambda number: {"at": LONG_AGO + timedelta(microseconds=number)},
        Novel: lambda number: {"isbn": f"n{number}"},
    }
    for number in range(20):
        model._default_manager.create(**keys[model](number))

    assert Counter(merged(3, model._default_manager.all)) == Counter(model._default_manager.all())
    assert is_split_by_range()


@pytest.mark.parametrize("order", [(), ("pk",), ("airline", "number"), ("-number",)])
@pytest.mark.parametrize("limit", [5, 1000])
def test_composite_keys(order: tuple[str, ...], limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model with a composite primary key is split by row number."""
    monkeypatch.setattr(querysets, "MAX_DIGESTED_ITEMS", limit)
    Flight.objects.bulk_create(Flight(airline="AB"[number % 2], number=number) for number in range(20))
    found = merged(3, lambda: Flight.objects.order_by(*order))

    assert Counter(found) == Counter(Flight.objects.all())
    assert not is_split_by_range()
    assert Counter(merged(3, Flight.objects.all, by="number")) == Counter(found)


def test_order_by_a_relation_is_not_by_key() -> None:
    """The name of a relation that is the key stands for the order of its model, which may have ties."""
    for number in range(10):
        Biography.objects.create(author=Author.objects.create(name=f"N{number % 3}"))
    found = merged(3, lambda: Biography.objects.order_by("author"))

    assert [each.author.name for each in found] == sorted(each.author.name for each in found)
    assert len({*found}) == len(found) == 10
    assert not is_split_by_range()
    with pytest.raises(InvalidItems, match="a sliced queryset needs a total order"):
        task(request(), 0, 3).shard(Biography.objects.order_by("author")[:5])


def test_last_row_of_a_slice_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample of a slice ends at its last row."""
    monkeypatch.setattr(querysets, "MAX_DIGESTED_ITEMS", 5)
    run = request()
    task(run, 0, 3).shard(Book.objects.order_by("pages", "pk")[10:20])
    last = Book.objects.order_by("pages", "pk")[19]
    Book.objects.filter(pk=last.pk).update(pages=99)

    with pytest.raises(ShardsDiffer):
        task(run, 1, 3).shard(Book.objects.order_by("pages", "pk")[10:20])


def test_inserted_rows_have_one_share() -> None:
    """Rows that are inserted between the tasks, at any place, are in one share by range; deleted ones in none."""
    run, found = request(), []
    for index in range(4):
        found += task(run, index, 4).shard(Book.objects.order_by("-pk"))
        Book.objects.bulk_create(
            Book(pk=key, isbn=f"{key}-{index}") for key in (-index - 1, 3 + index * 100 // 3, 1000 + index)
        )
    added = [book.pk for book in found if "-" in book.isbn]

    assert len({*found}) == len(found)
    assert [key for key in added if key < 0] == []  # The first share was read before them.
    assert {1000, 1001, 1002} <= {*added}
    assert {number**2 + 1 for number in range(23)} <= {book.pk for book in found}


def test_rows_that_differ_are_refused() -> None:
    """By row number, a task that finds more rows, or different ones, fails."""
    run = request()
    task(run, 0, 3).shard(Book.objects.order_by("title"))
    book = Book.objects.create(isbn="new")
    with pytest.raises(ShardsDiffer, match="expected 23 items, as in the first task of the run, got 24"):
        task(run, 1, 3).shard(Book.objects.order_by("title"))
    book.delete()
    Book.objects.filter(pk=1).update(title="Z")

    with pytest.raises(
        ShardsDiffer, match="expected the items of the first task of the run in their order, got 23 that"
    ):
        task(run, 1, 3).shard(Book.objects.order_by("title"))


FIELDS: dict[str, tuple[Callable[[], QuerySet[Any, Any]], str]] = {
    "unordered": (Book.objects.all, "isbn"),
    "ordered": (lambda: Book.objects.order_by("-title"), "title"),
    "of a relation": (lambda: Book.objects.order_by("title"), "author__name"),
    "relation": (Book.objects.all, "author"),
    "annotation": (lambda: Book.objects.annotate(low=Lower("title")), "low"),
    "aggregate": (lambda: Book.objects.annotate(n=Count("translators")), "n"),
    "repeated by a join": (lambda: Book.objects.filter(translators__name__in=["Ada", "Bo"]), "isbn"),
    "distinct": (lambda: Book.objects.filter(translators__name__in=["Ada", "Bo"]).distinct(), "isbn"),
    "values": (lambda: Book.objects.values("isbn", "pages"), "title"),
    "flat": (lambda: Book.objects.order_by("title").values_list("title", flat=True), "pages"),
    "sliced": (lambda: Book.objects.order_by("pk")[3:20], "title"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_each_row_is_in_one_share_by_field(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a field, rows with the same value are in the same share, in the order of the queryset."""
    monkeypatch.setattr(querysets, "KEY_BATCH_SIZE", 2)
    rows, field = FIELDS[name]
    found = [*map(plain, shares(3, rows, by=field))]
    expected = plain(rows() if rows().ordered else rows().order_by("pk"))
    unsliced = rows() if rows().query.is_sliced else rows().order_by("pk")

    assert sorted(row for share in found for row in share) == sorted(expected)
    assert found == [[row for row in expected if row in share] for share in found] or name == "flat"
    keys = dict(zip(plain(unsliced), unsliced.values_list(field, flat=True), strict=True))
    assert sum(len({keys[row] for row in share}) for share in found) == len({*keys.values()}) or name == "flat"


def test_function_as_key_of_rows() -> None:
    """The key of a row can be a function of it."""
    found = shares(3, Book.objects.all, by=lambda book: book.author_id)

    assert Counter(book for share in found for book in share) == Counter(Book.objects.all())
    assert sum(len({book.author_id for book in share}) for share in found) == 2


def test_function_needs_no_order() -> None:
    """By a function, rows that a to-many relation repeats may have any order."""
    rows = Book.objects.order_by("translators__name").values_list("isbn", "translators__name")

    assert Counter(merged(3, lambda: rows, by=lambda row: row[0])) == Counter(rows)


def test_condition_with_window_function() -> None:
    """A window function in a condition sees all rows, so they are split by row number."""
    ranked = Window(RowNumber(), order_by="-pk")
    rows = Book.objects.filter(GreaterThan(ranked, 3))

    assert Counter(merged(3, lambda: rows)) == Counter(rows)
    assert not is_split_by_range()


def test_field_reads_few_rows() -> None:
    """By a field, a task reads the keys of all rows, and only its own rows."""
    job = task(request(), 0, 3)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        share = list(job.shard(Book.objects.all(), by="isbn"))

    assert len(queries) == 2
    assert queries[1]["sql"].count(",") < 12 + len(share)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (lambda: Book.objects.raw("SELECT * FROM jobs_book"), r"raw\(\) cannot be split. Pass a list"),
        (lambda: Book.objects.all().union(Book.objects.all()), r"union\(\) cannot be split"),
        (lambda: Book.objects.all().difference(Book.objects.all()), r"difference\(\) cannot be split"),
        (lambda: Book.objects.distinct("title"), r"distinct\(\) with fields cannot be split"),
        (lambda: Book.objects.values("title").distinct(), r"distinct\(\) with values\(\)"),
        (lambda: Book.objects.values("title").annotate(n=Count("pk")), "aggregation cannot be split"),
        (lambda: Book.objects.order_by("?"), r"the same in every task, got one by extra\(\) or '\?'"),
        (lambda: Book.objects.extra(order_by=["title"]), r"by extra\(\) or '\?'"),
        (lambda: Book.objects.all()[:5], "a sliced queryset needs a total order"),
        (lambda: Book.objects.order_by("title")[:5], "End its order_by"),
        (
            lambda: Book.objects.filter(translators__name="Ada").order_by("pk")[:5],
            "by its primary key, without a slice",
        ),
        (lambda: Book.objects.order_by("translators__name"), "without a slice, or add distinct"),
        (lambda: Book.objects.order_by("translators__name").distinct(), "a to-many relation repeats have"),
        (
            lambda: Book.objects.annotate(n=Count("pk")).order_by("title", "translators__translations__title"),
            "that a to-many relation repeats have",
        ),
        (
            lambda: Book.objects.order_by("title").annotate(by=F("translators__name")).distinct(),
            "a to-many relation repeats",
        ),
    ],
)
def test_querysets_that_cannot_be_split(rows: Callable[[], Any], message: str, count: int) -> None:
    """A queryset that cannot be split is rejected at the call, even with one task; the error says why."""
    with pytest.raises(InvalidItems, match=message):
        task(request(), 0, count).shard(rows())


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("titel", "by: Cannot resolve keyword 'titel' into field. Choices are: author"),
        ("translators", "expected a field with one value per row, got 'translators'"),
        ("translators__name", "expected a field with one value per row"),
        ("author", r"row 0, got None \(NoneType\)\. Filter the rows, or pass a function that returns text"),
        (lambda book: book, r"as the key of row 0, got <Book: T0> \(Book\)"),
    ],
)
def test_invalid_keys_of_rows(by: Any, message: str, count: int) -> None:
    """A field that does not exist or has several values is rejected, and so is a key of another type."""
    Book.objects.filter(pk=1).update(author=None)
    with pytest.raises(InvalidItems, match=message):
        list(task(request(), 0, count).shard(Book.objects.all(), by=by))


@pytest.mark.parametrize("by", [None, "title", str])
def test_an_event_loop_is_refused(by: Any) -> None:
    """In `async def run()`, the error names `sync_to_async`, which works."""
    job = task(request(), 0, 2)

    async def run() -> list[Any]:
        with pytest.raises(InvalidItems, match=r"await sync_to_async\(function\)\(\)"):
            job.shard(Book.objects.all(), by=by)
        return await sync_to_async(lambda: list(job.shard(Book.objects.none())))()

    assert async_to_sync(run)() == []


def test_window_functions_cannot_be_split_by_field() -> None:
    """Window functions would see only the rows of the share."""
    rows = Book.objects.annotate(row=Window(RowNumber(), order_by="pk"))
    with pytest.raises(InvalidItems, match=r"window functions cannot be split by a field. Pass a function"):
        task(request(), 0, 3).shard(rows, by="title")

    assert Counter(book.row for book in merged(3, lambda: rows, by=lambda book: book.title)) == Counter(
        range(1, 24)
    )


def test_one_task_has_all_rows() -> None:
    """One task gets the rows with one query, and nothing is recorded."""
    job = task(request(), 0, 1)
    with CaptureQueriesContext(connection) as queries:
        assert len([*job.shard(Book.objects.order_by("title"))]) == 23

    assert len(queries) == 1
    assert not ItemList.objects.exists()


def test_task_beyond_the_failed_ones_has_no_rows() -> None:
    """A task of a rerun without a share gets nothing, and queries nothing."""
    first = request()
    job = task(request(shares=Shares(first.pk, 4, (1,)).encode()), 1, 2)
    with CaptureQueriesContext(connection) as queries:
        assert list(job.shard(Book.objects.all())) == [] == list(job.shard(Book.objects.all(), by="isbn"))

    assert len(queries) == 0


def test_later_task_reads_bounds_and_its_range() -> None:
    """All tasks but the first need one query for the bounds and one for their rows."""
    run = request()
    list(task(run, 0, 3).shard(Book.objects.all()))
    job = task(run, 1, 3)
    with CaptureQueriesContext(connection) as queries:
        list(job.shard(Book.objects.all()))

    assert len(queries) == 2


def test_key_that_json_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the keys do not survive JSON, the rows are split by number."""
    monkeypatch.setattr(Book._meta.pk, "to_python", lambda value: str(value))

    assert Counter(merged(3, Book.objects.all)) == Counter(Book.objects.all())
    assert not is_split_by_range()


def test_queryset_that_differs_between_tasks() -> None:
    """By ranges, each task reads the rows that its own queryset has in its range."""
    run = request()
    whole = set(task(run, 0, 2).shard(Book.objects.all()))
    half = set(task(run, 1, 2).shard(Book.objects.filter(pages__gt=3)))

    assert whole.isdisjoint(half)
    assert {*Book.objects.filter(pages__gt=3)} <= whole | half
