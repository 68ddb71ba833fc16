"""Yield a task's share of items, by their position or by a key of each item."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping, MappingView, Sequence, Set
from inspect import GEN_CLOSED, GEN_CREATED, getgeneratorstate, isgenerator
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from django.db.models import Manager, QuerySet
from django.db.models.query import RawQuerySet

from cloudrun_jobs.exceptions import InvalidItems, ShardsDiffer
from cloudrun_jobs.execution.attempt import Attempt
from cloudrun_jobs.execution.sharding import lists
from cloudrun_jobs.execution.sharding.fingerprint import digest_of, is_key, key_hash, sample_positions, text_of
from cloudrun_jobs.models import ItemList

if TYPE_CHECKING:
    from cloudrun_jobs.spec.command import JobCommand

BLOCK_SIZE = 1024  # items

T = TypeVar("T")


class Call:
    """One call of `shard()`. Outside a run, the only share has all items."""

    def __init__(self, job: JobCommand) -> None:
        self.active = job._active
        self.attempt: Attempt | None = self.active.attempt if self.active is not None else None
        self.number = 0 if self.attempt is None else self.active.next_call(ItemList.Kind.SHARD)
        self._name = job.command_name

        share = self.attempt.share if self.attempt is not None else None
        #: The task's share; None if it has none.
        self.index = share.index if share else 0
        #: The number of shares.
        self.count = share.count if share else 1
        if self.attempt is not None and self.attempt.is_element and self.index is not None:
            self.index, self.count = 0, 1  # The tasks of `delay_many()` have items of their own.

    def invalid(self, message: str, hint: str = "") -> InvalidItems:
        """Return the error for items that cannot be divided."""
        return InvalidItems(f"{self._name}: shard(): {message}", hint=hint)

    def compare(self, count: int, digest: str) -> None:
        """Record the number and digest of the items, or compare them with the recorded ones.

        Raises `ShardsDiffer`.
        """
        if self.attempt is None:
            return
        values = {"count": count, "digest": digest}
        first = lists.record(self.attempt, ItemList.Kind.SHARD, self.number, **values)
        if (first.count, first.digest) == (count, digest):
            return
        found = f"expected {first.count} items, as in the first task of the run, got {count}"
        if first.count == count:
            found = f"expected the items of the first task of the run in their order, got {count} that differ"
        call = f" call {self.number + 1}" if self.number else ""
        hint = "Pass the same items in the same order in every task and attempt, or split them by a key with by=."
        raise ShardsDiffer(f"{self._name}: shard(){call}: {found}.", hint=hint)

    def has_key(self, key: object, position: int, item: str) -> bool:
        """Return True if the key of an item is in the task's share. Raises `InvalidItems`."""
        if not is_key(key):
            expected = f"expected text, a number or a UUID as the key of {item} {position}"
            hint = f"Filter the {item}s, or pass a function that returns text."
            raise self.invalid(f"{expected}, got {key!r} ({type(key).__name__}).", hint)
        return key_hash(key) % self.count == self.index


def shard(job: JobCommand, items: Iterable[T], by: Callable[[T], object] | str | None) -> Iterator[T]:
    """Return an iterator over the task's share; see `CloudRunJobs.shard()`."""
    call = Call(job)
    is_queryset = isinstance(items, (QuerySet, RawQuerySet, Manager))
    for message, hint in _key_faults(by, is_queryset) if is_queryset else _faults(items, by):
        raise call.invalid(message, hint)
    if is_queryset:
        from cloudrun_jobs.execution.sharding import querysets  # Few jobs need it.

        return querysets.shard(call, items, by)
    if call.index is None:
        return iter(())
    return _by_key(call, items, by) if callable(by) else _by_position(call, items, call.index)


def _key_faults(by: object, is_queryset: bool) -> Iterator[tuple[str, str]]:
    if isinstance(by, str) and not is_queryset:
        hint = f'Pass operator.itemgetter("{by}"), operator.attrgetter("{by}") or another function of an item.'
        yield f"by: expected a function, because the items are not a queryset, got {by!r}.", hint
    if by is not None and not isinstance(by, str) and not callable(by):
        yield f"by: expected a function of an item, or the name of a field of a queryset, got {by!r}.", ""


def _faults(items: Any, by: object) -> Iterator[tuple[str, str]]:
    """Yield why the items cannot be divided, and a hint."""
    message = f"expected a list, range, iterator or queryset, got {type(items).__name__}."
    if isinstance(items, (str, bytes, bytearray, memoryview)):
        yield message, "Put a single item into a list."
    elif isinstance(items, Mapping):
        yield message, "Pass list(...) of its keys, values or items."
    elif isinstance(items, Set) and not isinstance(items, MappingView) and by is None:
        hint = "Pass sorted(...) of it, or split it by a key with by=."
        yield f"expected items in the same order in every task, got {type(items).__name__}.", hint
    elif isinstance(items, AsyncIterable):
        yield message, "Collect its items in a list: [item async for item in ...]."
    elif isgenerator(items) and getgeneratorstate(items) != GEN_CREATED:
        state = "ended" if getgeneratorstate(items) == GEN_CLOSED else "begun"
        hint = "Pass a new one: the items that it has yielded would be in no share."
        yield f"expected a new generator, got {items.__name__}(), which has {state}.", hint
    elif not _is_iterable(items):
        yield message, ""
    yield from _key_faults(by, is_queryset=False)


def _is_iterable(items: Any) -> bool:
    try:
        iter(items)
    except TypeError:
        return False
    return True


def _by_position(call: Call, items: Iterable[T], index: int) -> Iterator[T]:
    if call.count == 1:
        return iter(items)
    if not isinstance(items, Sequence) or isinstance(items, deque):  # The middle of a deque is slow to reach.
        return _walk(call, iter(items), index)
    count = len(items)
    call.compare(count, digest_of(text_of(items[position]) for position in sample_positions(count)))
    if isinstance(items, (list, tuple, range)):
        return iter(items[index :: call.count])
    return map(items.__getitem__, range(index, count, call.count))


def _by_key(call: Call, items: Iterable[T], by: Callable[[T], object]) -> Iterator[T]:
    for position, item in enumerate(items):
        if call.has_key(by(item), position, "item"):
            yield item


def _walk(call: Call, iterator: Iterator[T], own: int) -> Iterator[T]:
    """Yield every `count`-th item; at the end, compare those at 0, 1, 2, 4, 8 ... and the last one.

    Nothing is read past an item of the task: the next item may invalidate it, as with `itertools.groupby()`.
    The text of an item is made before the job can change the item.
    """
    texts: list[str] = []
    position, sample, last = 0, 0, ""
    while True:
        # The last item of a block is the task's own, or one of the sample.
        size = min(own, sample, position + BLOCK_SIZE - 1) + 1 - position
        block = _take(iterator, size)
        position += len(block)
        if block:
            last = text_of(block[-1])
        if len(block) < size:
            break
        if position > sample:
            texts.append(last)
            sample = 2 * sample or 1
        if position > own:
            own += call.count
            yield block[-1]
    call.compare(position, digest_of([*texts, last]))


if sys.version_info >= (3, 12):
    from itertools import batched  # Twice as fast as islice().

    def _take(iterator: Iterator[T], size: int) -> tuple[T, ...]:
        return next(batched(iterator, size), ())
else:

    def _take(iterator: Iterator[T], size: int) -> tuple[T, ...]:
        return tuple(islice(iterator, size))
