"""Interrupt a job that has lost a lock, and end its process if it does not react.

Signals reach Python's main thread only: a job in another thread learns of a loss from `check_lease()`.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, Self

from django.db import connections

from cloudrun_jobs import environ
from cloudrun_jobs.execution import termination
from cloudrun_jobs.execution.deadlines import LOST_LEASE_CLEANUP_SHARE
from cloudrun_jobs.process import wakeup
from cloudrun_jobs.process.connections import close_connections_in_use
from cloudrun_jobs.process.deferral import call_or_defer, in_main_thread

if TYPE_CHECKING:
    from cloudrun_jobs.locks.keeper import LeaseKeeper

LEASE_LOST_SIGNAL = signal.SIGUSR1

_active: list[LeaseWatch] = []
_arming = threading.Lock()


class LeaseWatch:
    """Raises `LeaseLost` in the main thread, once, when a lease is lost. A context manager.

    From `start()` to the end of the block the watchdog ends a process that still has a lost lease.
    """

    def __init__(self) -> None:
        self.keepers: Sequence[LeaseKeeper] = ()
        self._raised = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self in _active:
            _active.remove(self)
            _rearm_watchdog()

    def start(self, keepers: Sequence[LeaseKeeper]) -> None:
        if not in_main_thread():
            return
        self.keepers = keepers
        _active.append(self)
        for keeper in keepers:
            # A real signal: unlike Python's means between threads, it ends a sleep or a read at once.
            keeper.watch(on_renewed=_rearm_watchdog, on_lost=signal_main_thread)
        _rearm_watchdog()

    def raise_if_lost(self) -> None:
        lost = next((keeper for keeper in self.keepers if keeper.has_expired), None)
        if lost and not self._raised:
            self._raised = True
            close_connections_in_use()
            raise lost.lost_error


def is_signalled() -> bool:
    """Return True if a signal interrupts this thread when a lease is lost."""
    return in_main_thread() and _has_handler()


def _has_handler() -> bool:
    return signal.getsignal(LEASE_LOST_SIGNAL) is on_lease_lost_signal


def signal_main_thread() -> bool:
    """Send LEASE_LOST_SIGNAL to the main thread; return False if its handler is not installed."""
    if not _has_handler():
        return False
    signal.pthread_kill(threading.main_thread().ident or 0, LEASE_LOST_SIGNAL)
    return True


def on_lease_lost_signal(number: int, frame: FrameType | None) -> None:
    """Raise the error of a lost lease; in a queue worker, also that of the time limit."""
    wakeup.acknowledge()
    termination.interrupt_if_due()
    call_or_defer(_raise_if_any_lost)


def on_sigtstp(number: int, frame: FrameType | None) -> None:
    """Renew before Cloud Run moves the container to another machine."""
    for watch in _active:
        for keeper in watch.keepers:
            keeper.renew_soon()


def on_sigcont(number: int, frame: FrameType | None) -> None:
    """Renew, and check the leases before the job continues: the process may have been stopped for any time.

    Its connections may be dead by now, so Django checks them before their next use, except in a transaction: after
    the commit, the check would begin another one.
    """
    for connection in connections.all(initialized_only=True):
        if connection.autocommit:
            connection.health_check_enabled = True  # type: ignore[attr-defined]  # missing in the stubs
            connection.health_check_done = False  # type: ignore[attr-defined]  # missing in the stubs
    on_sigtstp(number, frame)
    call_or_defer(_raise_if_any_lost)


def _raise_if_any_lost() -> None:
    for watch in _active:
        watch.raise_if_lost()


def _rearm_watchdog() -> None:
    """Set the time at which a process that keeps its lost lock is ended.

    A C thread ends it without the GIL, which a regular expression may hold for minutes. Only in containers and in
    a worker's pool: elsewhere the process may be a server.
    """
    with _arming:
        keepers = [keeper for watch in _active for keeper in watch.keepers]
        if not keepers:
            faulthandler.cancel_dump_traceback_later()
        elif (environ.in_container() or environ.in_pool_process()) and sys.__stderr__ is not None:
            left = min(map(_kill_deadline, keepers)) - time.monotonic()
            # By its number: flushing the stream would wait for a thread that writes to it.
            faulthandler.dump_traceback_later(max(left, 0.001), exit=True, file=sys.__stderr__.fileno())


def _kill_deadline(keeper: LeaseKeeper) -> float:
    return keeper.deadline + keeper.request.ttl * LOST_LEASE_CLEANUP_SHARE


def _before_fork() -> None:
    """Stop the C thread: a child that exits would wait for it forever."""
    _arming.acquire()
    if _active:
        faulthandler.cancel_dump_traceback_later()


def _after_fork_in_parent() -> None:
    _arming.release()
    if _active:
        _rearm_watchdog()


def _after_fork_in_child() -> None:
    """Leave the leases to the parent."""
    _arming.release()
    _active.clear()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
)
