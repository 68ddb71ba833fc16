"""Critical sections: exceptions from signal handlers are deferred until they end.

A handler runs between any two steps of the main thread, even between acquiring one of Python's locks and the `try`
that releases it. An exception raised there leaves the lock held, and another thread waits for it forever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class _ThreadState(threading.local):
    """How many critical sections a thread is in, and the calls that they deferred."""

    def __init__(self) -> None:
        self.depth = 0
        self.deferred: list[Callable[[], None]] = []


_state = _ThreadState()


def in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextmanager
def defer_interrupts() -> Iterator[None]:
    """Make the block a critical section."""
    _state.depth += 1
    try:
        yield
    finally:
        _state.depth -= 1
        _run_deferred()


def uninterruptible(work: Callable[P, T]) -> Callable[P, T]:
    """Make a function a critical section."""

    @wraps(work)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        _state.depth += 1
        try:
            return work(*args, **kwargs)
        finally:
            _state.depth -= 1
            _run_deferred()

    return call


def interruptible(work: Callable[[], T]) -> T:
    """Call `work`, which signals may interrupt even inside a critical section, after the deferred calls."""
    depth, _state.depth = _state.depth, 0
    try:
        _run_deferred()
        return work()
    finally:
        # Python runs handlers after calls; the store comes before any call, so no handler runs before it.
        _state.depth = depth


def call_or_defer(action: Callable[[], None]) -> None:
    """Call `action`, which may raise, now or once after the critical section. For signal handlers."""
    if not _state.depth:
        action()
    elif action not in _state.deferred:
        _state.deferred.append(action)


def discard_deferred() -> None:
    """Drop this thread's deferred calls."""
    _state.deferred.clear()


def _run_deferred() -> None:
    while _state.deferred and not _state.depth:
        _state.deferred.pop(0)()
