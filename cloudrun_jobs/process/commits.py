"""What waits for the end of the transactions that this thread has open, in any database."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakValueDictionary

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

# Of all threads. Django drops a callback when it has run, and when its transaction is rolled back.
_marked: WeakValueDictionary[str, Callable[[], object]] = WeakValueDictionary()


def mark(callback: Callable[[], object], key: str) -> Callable[[], object]:
    """Mark a callback for `on_commit()`, for `awaits_commit()` to find it."""
    callback._cloudrun_jobs_key = key  # type: ignore[attr-defined]
    _marked[key] = callback
    return callback


def is_marked(key: str) -> bool:
    """Return True if a callback with this key runs once a transaction of any thread has committed."""
    return key in _marked


def awaits_commit(key: str) -> bool:
    """Return True if a callback with this key runs once a transaction of this thread has committed."""
    callbacks = [entry[1] for each in connections.all(initialized_only=True) for entry in each.run_on_commit]
    return any(getattr(callback, "_cloudrun_jobs_key", None) == key for callback in callbacks)


def open_blocks() -> list[object]:
    """Return the `atomic` blocks that this thread is in, without those that a TestCase rolls back."""
    return [block for each in connections.all(initialized_only=True) for block in _own_blocks(each)]


def open_transactions() -> list[str]:
    """Return the aliases of the databases with an open `atomic` block, or with autocommit off."""
    return [
        each.alias
        for each in connections.all(initialized_only=True)
        if _own_blocks(each) or (each.connection and not each.in_atomic_block and not each.get_autocommit())
    ]


def _own_blocks(connection: BaseDatabaseWrapper) -> list[object]:
    return [block for block in connection.atomic_blocks if not getattr(block, "_from_testcase", False)]
