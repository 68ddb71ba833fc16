"""What reaches into a job that runs: Cloud Run's signals, the loss of a lock, and the end of one that ignores it.

Cloud Run sends SIGTERM ten seconds before it kills a task, and SIGTSTP and SIGCONT around moving one to another
machine: https://cloud.google.com/run/docs/container-contract#jobs-shutdown. Signals are Python's main thread's:
a job in another thread learns of a loss by `check_lease()`.
"""

from __future__ import annotations

import faulthandler
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from . import context
from .locks import Lease

LOSS = signal.SIGUSR1
TERMINATED = 128 + signal.SIGTERM

_watched: list[Interrupt] = []


@contextmanager
def handled() -> Iterator[None]:
    """Handle the signals while the block runs, so that SIGTERM ends it in order."""
    previous = _install() if _in_main_thread() else {}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def watching(leases: Sequence[Lease]) -> Iterator[None]:
    """Interrupt the block when one of the leases is lost."""
    if not _in_main_thread():
        yield
        return
    interrupt = Interrupt(leases)
    _watched.append(interrupt)
    try:
        for lease in leases:
            lease.watch(interrupt)
        interrupt.wind_up()
        yield
    finally:
        _watched.remove(interrupt)
        if not _watched:
            faulthandler.cancel_dump_traceback_later()


class Interrupt:
    """Tells the main thread, once, that a lease was lost, and ends the process if it does not listen."""

    def __init__(self, leases: Sequence[Lease]) -> None:
        self.leases = leases
        self._told = False

    def renewed(self, lease: Lease) -> None:
        self.wind_up()

    def lost(self, lease: Lease) -> None:
        # A real signal: it ends a sleep or a read at once, as nothing that Python has between threads does.
        if signal.getsignal(LOSS) is _tell:
            signal.pthread_kill(threading.main_thread().ident or 0, LOSS)

    def wind_up(self) -> None:
        """Set the time at which a process that does not let go of its lost lock is ended.

        By a thread in C, which needs no interpreter lock: a regular expression may hold that for minutes. Not
        outside of containers: there the process may be somebody's server.
        """
        if context.in_container() and self.leases and sys.__stderr__ is not None:
            left = min(lease.last_moment for lease in self.leases) - time.monotonic()
            faulthandler.dump_traceback_later(max(left, 0.001), exit=True, file=sys.__stderr__)

    def tell(self) -> None:
        """Raise `LeaseLost` in the main thread if it was not told yet."""
        if not self._told and any(lease.lost.is_set() for lease in self.leases):
            self._told = True
            for lease in self.leases:
                lease.check()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _install() -> dict[signal.Signals, signal.Handlers]:
    """Set our handlers where nobody has others; return what is to be set again afterwards."""
    handlers = {signal.SIGTERM: _terminate, LOSS: _tell, signal.SIGCONT: _resume}
    if context.in_container():
        # Outside, it is somebody's Ctrl-Z, and they want the process to stop.
        handlers[signal.SIGTSTP] = _renew
    previous: dict[signal.Signals, signal.Handlers] = {}
    for number, handler in handlers.items():
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, handler)
            previous[number] = signal.SIG_DFL
    # Stays: one that is still under way must not meet the default, which kills.
    previous.pop(LOSS, None)
    return previous


def _terminate(number: int, frame: FrameType | None) -> None:
    sys.exit(TERMINATED)


def _tell(number: int, frame: FrameType | None) -> None:
    for interrupt in _watched:
        interrupt.tell()


def _renew(number: int, frame: FrameType | None) -> None:
    for interrupt in _watched:
        for lease in interrupt.leases:
            lease.renew_soon()


def _resume(number: int, frame: FrameType | None) -> None:
    """Look at the clock first, then ask: the process may have been stopped for any time."""
    for interrupt in _watched:
        for lease in interrupt.leases:
            lease.tick()
        interrupt.tell()
    _renew(number, frame)
