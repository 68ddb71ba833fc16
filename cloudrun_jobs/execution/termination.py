"""SIGTERM: interrupt the job, once, and let it clean up."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from types import FrameType
from typing import NoReturn

from cloudrun_jobs import environ
from cloudrun_jobs.exceptions import JobInterrupted
from cloudrun_jobs.execution import deadlines
from cloudrun_jobs.process.connections import close_connections_in_use
from cloudrun_jobs.process.deferral import call_or_defer, discard_deferred, in_main_thread

# One per running job, the outermost first: a job may call another.
_active: list[Termination] = []

ignored_signals: set[signal.Signals] = set()  # Set by `ignore_further_signals()`.


class Termination:
    """Whether and why a job must end early: SIGTERM, a cancellation, or its timeout."""

    def __init__(self, timeout: float | None = None) -> None:
        self.terminated_at: float | None = None  # When SIGTERM came, by the monotonic clock.
        self.in_main_thread = in_main_thread()
        self.ends_process = False  # Whether this package's handler received SIGTERM, rather than a server's.
        self.is_signalled = False  # Whether SIGTERM came, or in a worker's pool SIGQUIT.
        self.is_raised = False
        self._times_out_at = time.monotonic() + timeout if timeout else math.inf

    def start(self) -> None:
        """Receive SIGTERM from now on."""
        _active.append(self)

    def stop(self) -> None:
        _active.remove(self)

    def is_requested(self) -> bool:
        """Return True once SIGTERM has come."""
        return self.terminated_at is not None

    def extend(self, by: timedelta) -> None:
        """Move the timeout, for a run that overrides it."""
        self._times_out_at += by.total_seconds()

    def request(self) -> None:
        """Interrupt the job at its next `raise_if_requested()`."""
        if self.terminated_at is None:
            self.terminated_at = time.monotonic()

    def raise_if_requested(self, *, enforces_timeout: bool) -> None:
        """Raise `JobInterrupted` once, unless a signal handler has raised it.

        With `enforces_timeout`, the end of the timeout requests it too.
        """
        if enforces_timeout and time.monotonic() >= self._times_out_at:
            self.request()
        if self.is_requested() and not self.is_raised:
            self.is_raised = True
            raise self.interrupted(tolerance=0.0 if enforces_timeout else None)

    def times_out(self, *, tolerance: float = 0.0) -> bool:
        """Return True if the timeout is over, or ends in `tolerance` seconds."""
        return time.monotonic() >= self._times_out_at - tolerance

    def interrupted(self, *, tolerance: float | None = None) -> JobInterrupted:
        """Return the error for the job. A timeout, a cancellation and a shutdown send the same signal.

        `tolerance` is how many seconds before its end the timeout may be the cause.
        """
        if tolerance is None:
            in_pool = environ.in_pool_process()
            tolerance = deadlines.TIME_LIMIT_TOLERANCE_SECONDS if in_pool else deadlines.TIMEOUT_TOLERANCE_SECONDS
        earliest_timeout = self._times_out_at - tolerance
        timed_out = self.terminated_at is not None and earliest_timeout <= self.terminated_at
        return JobInterrupted("timeout" if timed_out else "interrupted")

    @property
    def has_timed_out(self) -> bool:
        return self.interrupted().reason == "timeout"

    def is_due(self, *, tolerance: float = 0.0) -> bool:
        """Return True if the job has to be interrupted, and has not been."""
        return (self.is_requested() or self.times_out(tolerance=tolerance)) and not self.is_raised

    def is_overdue(self) -> bool:
        """Return True if the time to clean up after SIGTERM is over, and the process must end.

        Outside Cloud Run it lasts at least until the timeout. No SIGKILL follows there, and a job that hangs would
        renew its locks for ever. A server ends its process itself.
        """
        return self.cleanup_seconds_left() <= 0

    def cleanup_seconds_left(self) -> float:
        """Return the seconds until the process must end."""
        if self.terminated_at is None or not self.ends_process:
            return math.inf
        in_pool = environ.in_pool_process()
        seconds = deadlines.POOL_CLEANUP_SECONDS if in_pool else deadlines.SIGTERM_CLEANUP_SECONDS
        ends_at = self.terminated_at + seconds
        if not (in_pool or environ.in_container()):
            ends_at = max(ends_at, self._times_out_at)
        return max(0.0, ends_at - time.monotonic())

    def ignore_further_signals(self) -> None:
        """Exit with the status of the finished work, even if SIGTERM arrived or arrives.

        Only a container keeps ignoring it: elsewhere it may have to end a process that does not exit.
        """
        if _in_main_thread() != [self] or not in_main_thread():
            return  # The outer job is still running.
        if environ.in_container() and signal.getsignal(signal.SIGTERM) is on_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            ignored_signals.add(signal.SIGTERM)
        discard_deferred()


def on_sigterm(number: int, frame: FrameType | None) -> None:
    """Interrupt the jobs; once, so that a second signal does not interrupt their cleanup.

    Outside Cloud Run, which sends SIGKILL, the second signal ends the process, even if its main thread is blocked.
    """
    if not (environ.in_container() or environ.in_pool_process()):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for termination in tuple(_active):
        termination.is_signalled = True
    _interrupt_jobs()


def interrupt_if_due() -> None:
    """Interrupt the job of a pool's process if its time is over or its end was requested. For signal handlers."""
    running, tolerance = _in_main_thread(), deadlines.TIME_LIMIT_TOLERANCE_SECONDS
    if environ.in_pool_process() and any(each.is_due(tolerance=tolerance) for each in running):
        _interrupt_jobs()


def _interrupt_jobs() -> None:
    running = _in_main_thread()
    was_raised = any(termination.is_raised for termination in running)
    for termination in tuple(_active):
        termination.request()
        termination.ends_process = True
    for termination in running:
        termination.is_raised = True
    if running and not was_raised:
        timed_out = (each for each in running if environ.in_pool_process() and each.has_timed_out)
        call_or_defer(partial(_interrupt, next(timed_out, running[0]).interrupted()))


def follow_server() -> None:
    """Interrupt the jobs of a server on SIGTERM, before the server's own handler. Call this in its main thread.

    Signal handlers run in the main thread only. A job in another thread is interrupted at its next `progress()`.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if not callable(handler) or handler is on_sigterm or isinstance(handler, _ServerHandler):
        return
    if in_main_thread():
        signal.signal(signal.SIGTERM, _ServerHandler(handler))


class _ServerHandler:
    """A handler of SIGTERM that interrupts the jobs, then calls the server's handler."""

    def __init__(self, handler: Callable[[int, FrameType | None], object]) -> None:
        self._handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        request_all()
        self._handler(number, frame)


def request_all() -> None:
    """Interrupt the jobs of all threads at their next `progress()`."""
    for termination in tuple(_active):  # Those of other threads begin and end.
        termination.request()


def _in_main_thread() -> list[Termination]:
    return [termination for termination in tuple(_active) if termination.in_main_thread]


def _interrupt(error: JobInterrupted) -> NoReturn:
    close_connections_in_use()
    raise error
