"""Stretches of code that no signal may break off: what its handler would raise waits for their end.

A handler runs between any two steps of the main thread, also between the taking of one of Python's locks and the
`try` that gives it back. An exception raised there leaves the lock held, and somebody waits for it for ever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class _Thread(threading.local):
    """How deep a thread is in shielded code, and what handlers would have done meanwhile."""

    def __init__(self) -> None:
        self.depth = 0
        self.kept: list[Callable[[], None]] = []


_this = _Thread()


@contextmanager
def defer_interrupts() -> Iterator[None]:
    """Let nothing raise out of a signal handler while the block runs."""
    _this.depth += 1
    try:
        yield
    finally:
        _this.depth -= 1
        _act()


def uninterruptible(work: Callable[P, T]) -> Callable[P, T]:
    """Make a function that no signal breaks off."""

    @wraps(work)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        _this.depth += 1
        try:
            return work(*args, **kwargs)
        finally:
            _this.depth -= 1
            _act()

    return call


def interruptible(work: Callable[[], T]) -> T:
    """Call what signals may break off, though the caller is shielded; act first on those that came before."""
    depth, _this.depth = _this.depth, 0
    try:
        _act()
        return work()
    finally:
        # Python runs handlers after calls: a store comes first, so that none can come before it.
        _this.depth = depth


def call_or_defer(act: Callable[[], None]) -> None:
    """Do it now, or once as soon as no shield is in the way. For signal handlers: `act` may raise."""
    if not _this.depth:
        act()
    elif act not in _this.kept:
        _this.kept.append(act)


def discard_deferred() -> None:
    """Do nothing of what waits for the end of this thread's shields."""
    _this.kept.clear()


def _act() -> None:
    while _this.kept and not _this.depth:
        _this.kept.pop(0)()
