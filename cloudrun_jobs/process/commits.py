"""What waits for the end of the transactions that this thread has open, in any database."""

from __future__ import annotations

from collections.abc import Callable

from django.db import connections


def mark(callback: Callable[[], object], key: str) -> Callable[[], object]:
    """Mark a callback for `on_commit()`, for `awaits_commit()` to find it."""
    callback._cloudrun_jobs_key = key  # type: ignore[attr-defined]
    return callback


def awaits_commit(key: str) -> bool:
    """Return True if a callback with this key runs once a transaction of this thread has committed."""
    callbacks = [entry[1] for each in connections.all(initialized_only=True) for entry in each.run_on_commit]
    return any(getattr(callback, "_cloudrun_jobs_key", None) == key for callback in callbacks)


def open_blocks() -> list[object]:
    """Return the `atomic` blocks that this thread is in, without those that a TestCase rolls back."""
    blocks = [block for each in connections.all(initialized_only=True) for block in each.atomic_blocks]
    return [block for block in blocks if not getattr(block, "_from_testcase", False)]
