"""Split a queryset in the database: by ranges of the primary key, by row number, or by a field."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Any

from django.core.exceptions import EmptyResultSet, FieldDoesNotExist, FieldError, ValidationError
from django.db.models import CompositePrimaryKey, F, Manager, Model, QuerySet, Window
from django.db.models.expressions import Col, OrderBy
from django.db.models.functions import RowNumber
from django.db.models.query import RawQuerySet
from django.db.models.sql.datastructures import Join

from cloudrun_jobs.execution.sharding import lists
from cloudrun_jobs.execution.sharding.fingerprint import MAX_DIGESTED_ITEMS, digest_of, sample_positions, text_of
from cloudrun_jobs.execution.sharding.static import Call
from cloudrun_jobs.models import ItemList

FETCH_SIZE = 2000  # rows
KEY_BATCH_SIZE = 500  # primary keys in one query

ROW = "cloudrun_jobs_row"  # The alias of the row number.


def shard(call: Call, items: Any, by: Callable[[Any], object] | str | None) -> Iterator[Any]:
    """Return an iterator over the task's share of a queryset."""
    if isinstance(items, Manager):
        raise call.invalid("expected a queryset, got a manager.", "Pass manager.all().")
    if isinstance(items, RawQuerySet):
        raise call.invalid("raw() cannot be split.", "Pass a list of its rows, or a queryset.")
    if lists.blocks_event_loop():
        hint = "Put the loop into a function, and `await sync_to_async(function)()`."
        raise call.invalid("an event loop is running, which the query would block.", hint)
    source = _Source(call, items, by)
    keys = source.keys(by) if isinstance(by, str) else None
    if call.index is None:
        return iter(())
    if keys is not None:
        return source.by_field(keys)
    if callable(by):
        return _by_function(call, source.rows, by)
    return source.share(call.index)


def _by_function(call: Call, rows: QuerySet[Any, Any], by: Callable[[Any], object]) -> Iterator[Any]:
    for position, row in enumerate(rows.iterator(FETCH_SIZE)):
        if call.has_key(by(row), position, "row"):
            yield row


class _Source:
    """A queryset that can be split, with a total order."""

    def __init__(self, call: Call, given: QuerySet[Any, Any], by: object) -> None:
        self._call = call
        self._key = _key_names(given.model)
        for message, hint in _obstacles(given):
            raise call.invalid(message, hint)
        order = _order(given)
        by_key = not order or self._is_key(order[0])
        expressions: list[Any] = [*given.query.annotations.values(), given.query.where]
        self._has_windows = any(each.contains_over_clause for each in expressions)
        self._has_ranges = by_key and len(self._key) == 1 and not given.query.is_sliced and not self._has_windows
        if not any(self._is_unique(given.model, each) for each in order):
            if given.query.is_sliced:
                hint = "End its order_by() with the primary key, before the slice."
                raise call.invalid("a sliced queryset needs a total order.", hint)
            order = [*order, *(OrderBy(F(name)) for name in self._key)]
            given = _ordered(given, *order)
        needs_order = given.query.is_sliced or not (self._has_ranges or callable(by))
        if needs_order and _has_repeated_rows(given):
            hint = "Order it by its primary key, without a slice, or add distinct()."
            raise call.invalid("rows that a to-many relation repeats have no total order.", hint)
        self._order = order
        #: The rows in a total order.
        self.rows = given

    def share(self, index: int) -> Iterator[Any]:
        """Return an iterator over the rows of a share, split by ranges of the key or by row number."""
        call = self._call
        if call.attempt is None or call.count == 1:
            return self.rows.iterator(FETCH_SIZE)
        if self._has_ranges:
            kind, check = ItemList.Kind.SHARD, call.active.raise_if_interrupted
            found = lists.write_once(call.attempt, kind, call.number, self._bounds, raise_if_interrupted=check)
            if found.bounds is not None:
                return self._range(found.bounds, index)
        values = self._row_values()
        call.compare(**values)
        start, stop = (values["count"] * number // call.count for number in (index, index + 1))
        return self.rows[start:stop].iterator(FETCH_SIZE) if start < stop else iter(())

    def keys(self, field: str) -> QuerySet[Any, Any]:
        """Return the primary key and the field of each row."""
        if self._has_windows:
            hint = "Pass a function of a row."
            raise self._call.invalid("a queryset with window functions cannot be split by a field.", hint)
        try:
            if field.split("__")[0] not in self.rows.query.annotations:
                path = self.rows.query.names_to_path(field.split("__"), self.rows.model._meta)[0]
                if any(step.m2m for step in path):
                    raise self._call.invalid(f"by: expected a field with one value per row, got {field!r}.")
            return self.rows.values_list("pk", field)
        except FieldError as error:
            raise self._call.invalid(f"by: {error}") from None

    def by_field(self, keys: QuerySet[Any, Any]) -> Iterator[Any]:
        """Yield the rows of the task's share, in their order."""
        pairs = enumerate(keys.iterator(FETCH_SIZE))
        own = (pk for position, (pk, key) in pairs if self._call.has_key(key, position, "row"))
        # A join's repetitions of a row are adjacent.
        unique = (pk for pk, _ in groupby(own))
        rows = _without_slice(self.rows)
        while batch := list(islice(unique, KEY_BATCH_SIZE)):
            yield from rows.filter(pk__in=batch)

    def _is_key(self, order: Any) -> bool:
        return _name(order) == "pk" or (_name(order),) == self._key

    def _is_unique(self, model: type[Model], order: Any) -> bool:
        if self._is_key(order):
            return True
        try:
            field: Any = model._meta.get_field(_name(order))
        except FieldDoesNotExist:
            return False
        # The name of a relation stands for the ordering of the related model.
        is_column = field.concrete and (not field.is_relation or field.attname == _name(order))
        return is_column and field.unique and not field.null

    def _bounds(self, items: ItemList) -> Mapping[str, Any]:
        """Return the first primary key of each share except the first, for shares of nearly the same size."""
        keys = _ordered(self.rows, "pk").values_list("pk", flat=True)
        keys.query.distinct = False  # The row numbers count repeated rows too.
        count = keys.count()
        shares = min(self._call.count, count)
        firsts = [share * count // shares + 1 for share in range(1, shares)]
        numbered = keys.alias(**{ROW: Window(RowNumber(), order_by="pk")})
        bounds = list(numbered.filter(**{f"{ROW}__in": firsts})) if firsts else []
        encoded = [bound if isinstance(bound, (int, str)) else str(bound) for bound in bounds]
        try:
            if list(map(self._decode, encoded)) == bounds:
                return {"count": count, "bounds": encoded}
        except (ValidationError, ValueError, TypeError):
            pass
        return self._row_values()  # JSON cannot store keys of this type.

    def _range(self, bounds: Sequence[Any], index: int) -> Iterator[Any]:
        """Return the rows of a share. The first and the last range are open, to cover later rows."""
        if index > len(bounds):
            return iter(())
        limits = {}
        if index > 0:
            limits["pk__gte"] = self._decode(bounds[index - 1])
        if index < len(bounds):
            limits["pk__lt"] = self._decode(bounds[index])
        return self.rows.filter(**limits).iterator(FETCH_SIZE)

    def _decode(self, bound: Any) -> Any:
        return self.rows.model._meta.pk.to_python(bound)

    def _row_values(self) -> dict[str, Any]:
        """Return the number of rows and a digest of the primary keys at the sample positions."""
        keys = self.rows.values_list("pk", flat=True)
        if (count := keys.count()) > MAX_DIGESTED_ITEMS:
            offset = self.rows.query.low_mark + 1
            positions = [position + offset for position in sample_positions(count)]
            order = [name for each in self._order for name in (self._key if _name(each) == "pk" else (each,))]
            numbered = _without_slice(self.rows).annotate(**{ROW: Window(RowNumber(), order_by=order)})
            keys = _ordered(numbered.filter(**{f"{ROW}__in": positions}), ROW).values_list("pk", flat=True)
        return {"count": count, "digest": digest_of(map(text_of, keys))}


def _key_names(model: type[Model]) -> tuple[str, ...]:
    """Return the names of the columns of the primary key."""
    key: Any = model._meta.pk
    columns: Any = key.fields if isinstance(key, CompositePrimaryKey) else [key]
    return tuple(column.attname for column in columns)


def _name(order: Any) -> str:
    """Return the name of the field in an entry of order_by(); empty for other expressions."""
    if isinstance(order, str):
        return order.removeprefix("-")
    expression = order.expression if isinstance(order, OrderBy) else order
    return str(getattr(expression, "name", "")) if isinstance(expression, F) else ""


def _order(rows: QuerySet[Any, Any]) -> list[Any]:
    """Return the order of the queryset as entries for order_by()."""
    query = rows.query
    order: Any = query.order_by
    if not order and query.default_ordering and query.group_by is None:
        order = query.get_meta().ordering or ()
    return list(order) if query.standard_ordering else list(map(_reversed, order))


def _ordered(rows: QuerySet[Any, Any], *order: Any) -> QuerySet[Any, Any]:
    """Return the rows in this order, even after `reverse()`."""
    rows = rows.order_by(*order)
    rows.query.standard_ordering = True
    return rows


def _reversed(order: Any) -> Any:
    if isinstance(order, str):
        return order.removeprefix("-") if order.startswith("-") else f"-{order}"
    order = order.copy() if isinstance(order, OrderBy) else order.asc()
    order.reverse_ordering()
    return order


def _without_slice(rows: QuerySet[Any, Any]) -> QuerySet[Any, Any]:
    rows = rows.all()
    rows.query.clear_limits()
    return rows


def _obstacles(rows: QuerySet[Any, Any]) -> Iterator[tuple[str, str]]:
    """Yield why the queryset cannot be split, and a hint."""
    query, as_list = rows.query, "Pass a list of its rows: list(...)."
    has_fields = getattr(rows, "_fields", None) is not None
    if query.combinator:
        yield f"{query.combinator}() cannot be split.", as_list
    if query.distinct_fields:
        yield "distinct() with fields cannot be split.", as_list
    if query.distinct and has_fields:
        yield "distinct() with values() or values_list() cannot be split.", as_list
    if isinstance(query.group_by, tuple) and not any(_is_key(rows, each) for each in query.group_by):
        yield "values() with an aggregation cannot be split unless it groups by the primary key.", as_list
    if query.extra_order_by or "?" in query.order_by:
        yield "expected an order that is the same in every task, got one by extra() or '?'.", "Use order_by()."


def _is_key(rows: QuerySet[Any, Any], expression: Any) -> bool:
    target, alias = getattr(expression, "target", None), getattr(expression, "alias", None)
    return target == rows.model._meta.pk and alias == rows.query.base_table


def _has_repeated_rows(rows: QuerySet[Any, Any]) -> bool:
    """Return True if a to-many relation may repeat rows with the same primary key but other values."""
    compiler: Any = rows.query.clone().get_compiler(rows.db)
    try:
        order = [expression for expression, _ in compiler.pre_sql_setup()[1]]  # Joins what the order needs.
    except EmptyResultSet:
        return False
    query, repeating = compiler.query, set()
    for alias, join in query.alias_map.items():  # A join comes after its parent.
        if isinstance(join, Join):
            field: Any = join.join_field
            if field.one_to_many or field.many_to_many or join.parent_alias in repeating:
                repeating.add(alias)
    if query.group_by is None and not query.distinct:
        return bool(repeating)
    groups = query.group_by if isinstance(query.group_by, tuple) else ()
    used = [each for each in (*query.annotations.values(), *groups, *order) if not each.contains_aggregate]
    columns = (column for each in used for column in each.flatten() if isinstance(column, Col))
    return any(column.alias in repeating for column in columns)
