"""What reaches into a job that runs: Cloud Run's signals, the loss of a lock, and the end of one that ignores it.

Cloud Run sends SIGTERM ten seconds before it kills a task, and SIGTSTP and SIGCONT around moving one to another
machine: https://cloud.google.com/run/docs/container-contract#jobs-shutdown. Signals are Python's main thread's:
a job in another thread learns of a loss by `check_lease()`.

A handler raises in `run()` and in waits, and nowhere else: never while locks are taken or given back.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from django.db import connections

from cloudrun_jobs import environ
from cloudrun_jobs.exceptions import JobInterrupted
from cloudrun_jobs.process.connections import close_connections_in_use
from cloudrun_jobs.process.deferral import call_or_defer, defer_interrupts, discard_deferred, interruptible
from cloudrun_jobs.process.wakeup import SignalWakeup

if TYPE_CHECKING:
    from cloudrun_jobs.locks import Lease

LEASE_LOST_SIGNAL = signal.SIGUSR1
HANDLED_SIGNALS = (signal.SIGTERM, signal.SIGCONT, signal.SIGTSTP)

# Cloud Run's clock for a task began before ours.
TIMEOUT_TOLERANCE_SECONDS = 15.0

_handling: list[Interrupt] = []
_watched: list[Interrupt] = []
_wakeups: list[SignalWakeup] = []
_ignored_signals: set[signal.Signals] = set()  # To these `let_end()` has made the process.
_arming = threading.Lock()


@contextmanager
def handle_signals(timeout: float | None = None) -> Iterator[Interrupt]:
    """Handle the signals while the block runs, so that what is `exposed()` in it ends in order.

    Leases that the block takes are to be given back in it: until then a process that hangs is in others' way.
    `timeout` is how many seconds Cloud Run gives the block.
    """
    interrupt = Interrupt(timeout)
    with defer_interrupts():
        _handling.append(interrupt)
        try:
            with _installed() if _in_main_thread() and not _wakeups else nullcontext():
                yield interrupt
        finally:
            _handling.remove(interrupt)
            interrupt.unwatch()


def can_interrupt() -> bool:
    """Say whether the signal of a loss would find its handler."""
    return signal.getsignal(LEASE_LOST_SIGNAL) is _on_lease_lost_signal


def sleep(seconds: float) -> None:
    """Sleep until a signal says otherwise."""
    interruptible(partial(time.sleep, seconds))


def _rearm_watchdog() -> None:
    """Set the time at which a process that does not let go of its lost lock is ended.

    By a thread in C, which needs no interpreter lock: a regular expression may hold that for minutes. Not
    outside of containers: there the process may be somebody's server.
    """
    with _arming:
        leases = [lease for interrupt in _watched for lease in interrupt.leases]
        if not leases:
            faulthandler.cancel_dump_traceback_later()
        elif environ.in_container() and sys.__stderr__ is not None:
            left = min(lease.kill_deadline for lease in leases) - time.monotonic()
            # By its number: to flush the stream would wait for who writes to it.
            faulthandler.dump_traceback_later(max(left, 0.001), exit=True, file=sys.__stderr__.fileno())


class Interrupt:
    """Tells the main thread, once, that a lease was lost, and ends the process if it does not listen."""

    def __init__(self, timeout: float | None = None) -> None:
        self.leases: Sequence[Lease] = ()
        self.terminated_at: float | None = None  # When SIGTERM came, by the monotonic clock.
        self.out_of_time = time.monotonic() + timeout - TIMEOUT_TOLERANCE_SECONDS if timeout else None
        self._raised = False

    def watch(self, leases: Sequence[Lease]) -> None:
        """Raise in what is exposed when one of the leases is lost, and see that the process ends in time."""
        if not _in_main_thread():
            return
        self.leases = leases
        _watched.append(self)
        for lease in leases:
            lease.watch(self)
        _rearm_watchdog()

    def unwatch(self) -> None:
        """Watch no longer."""
        if self in _watched:
            _watched.remove(self)
            _rearm_watchdog()

    def renewed(self, lease: Lease) -> None:
        _rearm_watchdog()

    def lost(self, lease: Lease) -> None:
        # A real signal: it ends a sleep or a read at once, as nothing that Python has between threads does.
        _signal_main_thread()

    def ignore_further_signals(self) -> None:
        """Have the process end with the status it has by now, though SIGTERM came or comes: the work is over.

        It stays deaf in a container alone: elsewhere somebody may have to end one that does not end by itself.
        """
        if _handling != [self] or not _in_main_thread():
            return  # The work around this one is not over.
        if environ.in_container() and signal.getsignal(signal.SIGTERM) is _on_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            _ignored_signals.add(signal.SIGTERM)
        discard_deferred()

    def interrupted(self) -> JobInterrupted:
        """Say why SIGTERM came, as far as it can be known here: Cloud Run sends it for either reason."""
        over = self.out_of_time and self.terminated_at and self.out_of_time <= self.terminated_at
        return JobInterrupted("timeout" if over else "cancelled")

    def raise_if_lost(self) -> None:
        """Raise `LeaseLost` in the main thread if it was not told yet."""
        lost = next((lease for lease in self.leases if lease.has_expired), None)
        if lost and not self._raised:
            self._raised = True
            close_connections_in_use()
            raise lost.lost_error


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _signal_main_thread() -> bool:
    """Send the main thread the signal of a loss, which makes it look around; say whether that could be done."""
    if not can_interrupt():
        return False
    signal.pthread_kill(threading.main_thread().ident or 0, LEASE_LOST_SIGNAL)
    return True


@contextmanager
def _installed() -> Iterator[None]:
    ours = _install()
    try:
        with SignalWakeup(HANDLED_SIGNALS, _signal_main_thread) as wakeup:
            _wakeups.append(wakeup)
            yield
    finally:
        _wakeups.clear()
        for number in ours:
            if number not in _ignored_signals:
                signal.signal(number, signal.SIG_DFL)


def _install() -> set[signal.Signals]:
    """Set our handlers where nobody has others; return for which signals, to be taken back afterwards."""
    handlers = {signal.SIGTERM: _on_sigterm, LEASE_LOST_SIGNAL: _on_lease_lost_signal, signal.SIGCONT: _on_sigcont}
    if environ.in_container():
        # Outside, it is somebody's Ctrl-Z, and they want the process to stop.
        handlers[signal.SIGTSTP] = _on_sigtstp
    free = {number for number in handlers if _is_free(number)}
    for number in free:
        signal.signal(number, handlers[number])
    # Stays: one that is still under way must not meet the default, which kills.
    return free - {LEASE_LOST_SIGNAL}


def _is_free(number: signal.Signals) -> bool:
    """Say whether nobody has set what the signal does; a process may run a second job after its first."""
    handler = signal.getsignal(number)
    return handler == signal.SIG_DFL or (handler == signal.SIG_IGN and number in _ignored_signals)


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    """Interrupt the job; once, so that a second signal does not break off what it does to clean up."""
    if not _handling or any(interrupt.terminated_at for interrupt in _handling):
        return
    for interrupt in _handling:
        interrupt.terminated_at = time.monotonic()
    call_or_defer(partial(_leave, _handling[0].interrupted()))


def _leave(interrupted: JobInterrupted) -> NoReturn:
    close_connections_in_use()
    raise interrupted


def _on_lease_lost_signal(number: int, frame: FrameType | None) -> None:
    for wakeup in _wakeups:
        wakeup.acknowledge()
    call_or_defer(_raise_if_any_lost)


def _raise_if_any_lost() -> None:
    for interrupt in _watched:
        interrupt.raise_if_lost()


def _on_sigtstp(number: int, frame: FrameType | None) -> None:
    for interrupt in _watched:
        for lease in interrupt.leases:
            lease.renew_soon()


def _on_sigcont(number: int, frame: FrameType | None) -> None:
    """Renew, but look at the clock before the job goes on: the process may have been stopped for any time.

    Its connections may be dead by now. Django finds out before it uses one for the next time.
    """
    for connection in connections.all(initialized_only=True):
        connection.health_check_enabled = True  # type: ignore[attr-defined]  # missing in the stubs
        connection.health_check_done = False  # type: ignore[attr-defined]  # missing in the stubs
    _on_sigtstp(number, frame)
    call_or_defer(_raise_if_any_lost)


def _before_fork() -> None:
    """Let no thread in C be left behind: a child that ends would have faulthandler wait for it for ever."""
    _arming.acquire()
    if _watched:
        faulthandler.cancel_dump_traceback_later()


def _in_parent() -> None:
    _arming.release()
    if _watched:
        _rearm_watchdog()


def _in_child() -> None:
    """Leave the leases, and the hearing of signals, to the process that this one was forked from."""
    _arming.release()
    _watched.clear()
    for wakeup in _wakeups:
        wakeup.abandon()
    _wakeups.clear()


os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
