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
    """How many critical sections a thread is in, the calls that they deferred, and what receives exceptions."""

    def __init__(self) -> None:
        self.depth = 0
        self.deferred: list[Callable[[], None]] = []
        self.receive: Callable[[BaseException], object] | None = None


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
    depth, receive, _state.receive, _state.depth = _state.depth, _state.receive, None, 0
    try:
        _run_deferred()
        return work()
    finally:
        # Python runs handlers after calls; the stores come before any call, so no handler runs before them.
        _state.depth, _state.receive = depth, receive


@contextmanager
def interrupts_received_by(receive: Callable[[BaseException], object]) -> Iterator[None]:
    """Pass what signal handlers raise in the block to `receive`: its own code must not be interrupted."""
    outer, _state.receive = _state.receive, receive
    try:
        yield
    finally:
        _state.receive = outer


def call_or_defer(action: Callable[[], None]) -> None:
    """Call `action`, which may raise, now or once after the critical section. For signal handlers."""
    if not _state.depth:
        _call(action)
    elif action not in _state.deferred:
        _state.deferred.append(action)


def discard_deferred() -> None:
    """Drop this thread's deferred calls."""
    _state.deferred.clear()


def _call(action: Callable[[], None]) -> None:
    if _state.receive is None:
        action()
        return
    try:
        action()
    except BaseException as error:  # noqa: BLE001  (whatever it is, its receiver raises it)
        _state.receive(error)


def _run_deferred() -> None:
    while _state.deferred and not _state.depth:
        _call(_state.deferred.pop(0))
