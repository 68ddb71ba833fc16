"""Interrupt a running job: SIGTERM, lease loss, and Cloud Run's moves between machines.

Cloud Run sends SIGTSTP before it moves a container and SIGCONT after it. The handlers raise only in code under
`interruptible()`: never while locks are acquired or released, or the record is written.

A process of Celery's prefork pool has handlers: SIGTERM and SIGQUIT end it; SIGUSR1, which announces a time limit,
raises an exception anywhere. A job replaces them while it runs.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from cloudrun_jobs import environ
from cloudrun_jobs.execution import lease_watch, termination
from cloudrun_jobs.execution.termination import Termination
from cloudrun_jobs.process import wakeup
from cloudrun_jobs.process.deferral import defer_interrupts, in_main_thread

WAKEUP_SIGNALS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGCONT, signal.SIGTSTP)
HANDLERS = {
    signal.SIGTERM: termination.on_sigterm,
    signal.SIGCONT: lease_watch.on_sigcont,
    signal.SIGTSTP: lease_watch.on_sigtstp,
    lease_watch.LEASE_LOST_SIGNAL: lease_watch.on_lease_lost_signal,
}
# In a worker's pool: the worker's shutdown sends SIGQUIT, the revocation of a task SIGTERM.
POOL_HANDLERS = {**HANDLERS, signal.SIGQUIT: termination.on_sigterm}


@contextmanager
def handle_signals(timeout: float | None = None) -> Iterator[Termination]:
    """Handle the signals while the block runs; it releases the leases that it acquires.

    `timeout` is how many seconds Cloud Run gives the block.
    """
    terminated = Termination(timeout)
    with defer_interrupts():
        terminated.start()
        try:
            with _handlers() if in_main_thread() and not wakeup.is_active() else nullcontext():
                yield terminated
        finally:
            terminated.stop()


@contextmanager
def _handlers() -> Iterator[None]:
    installed = _install()
    try:
        with wakeup.SignalWakeup((*WAKEUP_SIGNALS, signal.SIGINT), lease_watch.signal_main_thread):
            yield
    finally:
        for number, handler in installed.items():
            if number not in termination.ignored_signals:
                signal.signal(number, handler)


def _install() -> dict[signal.Signals, Any]:
    """Install handlers where the process has none, or is a pool's; return what to restore afterwards."""
    if environ.in_pool_process():
        return {number: signal.signal(number, handler) for number, handler in POOL_HANDLERS.items()}
    # Elsewhere SIGTSTP is Ctrl-Z, which has to stop the process.
    numbers = {number for number in HANDLERS if number != signal.SIGTSTP or environ.in_container()}
    free = {number for number in numbers if _is_free(number)}
    for number in free:
        signal.signal(number, HANDLERS[number])
    # LEASE_LOST_SIGNAL keeps its handler: a late signal would kill the process by default.
    return dict.fromkeys(free - {lease_watch.LEASE_LOST_SIGNAL}, signal.SIG_DFL)


def _is_free(number: signal.Signals) -> bool:
    """Return True if the signal has no handler; a process may run a second job after its first."""
    handler = signal.getsignal(number)
    return handler == signal.SIG_DFL or (handler == signal.SIG_IGN and number in termination.ignored_signals)


_fork = threading.local()  # The signal mask of a thread that forks; None if no signal has a handler of a job.


def _block_before_fork() -> None:
    """Block the signals: an exception of a handler is lost in the hooks that a child runs after its fork."""
    has_handlers = any(map(_is_handled, WAKEUP_SIGNALS))
    _fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, WAKEUP_SIGNALS) if has_handlers else None


def _unblock_after_fork() -> None:
    if (mask := _fork.mask) is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _reset_after_fork() -> None:
    """Give a forked child the default actions. It has no wakeup fd, so `Process.terminate()` might not end it."""
    for number in filter(_is_handled, WAKEUP_SIGNALS):
        signal.signal(number, signal.SIG_DFL)
    _unblock_after_fork()


def _is_handled(number: signal.Signals) -> bool:
    return signal.getsignal(number) is POOL_HANDLERS[number]


os.register_at_fork(
    before=_block_before_fork, after_in_parent=_unblock_after_fork, after_in_child=_reset_after_fork
)
