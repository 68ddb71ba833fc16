"""Signals that end no system call interrupt the job, and existing handlers are kept."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from cloudrun_jobs.exceptions import JobInterrupted
from cloudrun_jobs.execution import interrupts
from cloudrun_jobs.execution.lease_watch import LEASE_LOST_SIGNAL
from cloudrun_jobs.process.deferral import interruptible
from cloudrun_jobs.process.wakeup import SignalWakeup
from tests.locks.workers import until

WAIT_CHANNEL = Path(f"/proc/self/task/{threading.main_thread().native_id}/wchan")
SLEEP_SECONDS = 40.0

pytestmark = pytest.mark.skipif(not WAIT_CHANNEL.exists(), reason="needs /proc")


def _sleeps() -> bool:
    return "nanosleep" in WAIT_CHANNEL.read_text()


def _signal_unnoticed(number: int) -> None:
    """Have this thread receive a signal of the process while the main thread sleeps."""
    until(_sleeps)
    signal.pthread_kill(threading.get_ident(), number)


def _is_interrupted(unnoticed: threading.Thread) -> None:
    began = time.monotonic()
    unnoticed.start()
    with pytest.raises(JobInterrupted):
        interruptible(partial(time.sleep, SLEEP_SECONDS))

    assert time.monotonic() - began < SLEEP_SECONDS


@pytest.fixture
def unnoticed() -> Iterator[threading.Thread]:
    """A thread that receives SIGTERM once the main thread sleeps."""
    thread = threading.Thread(target=_signal_unnoticed, args=[signal.SIGTERM])
    yield thread
    thread.join()


def test_signal_that_another_thread_takes_ends_the_sleep(unnoticed):
    """Without the wakeup fd, Python would run the handler after the sleep."""
    with interrupts.handle_signals():
        _is_interrupted(unnoticed)


def test_existing_wakeup_fd_is_kept():
    """An event loop keeps its wakeup fd, and signals that end a call interrupt the job."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    signal.set_wakeup_fd(write_fd)
    try:
        with interrupts.handle_signals(), pytest.raises(JobInterrupted):
            interruptible(partial(os.kill, os.getpid(), signal.SIGTERM))
    finally:
        assert signal.set_wakeup_fd(-1) == write_fd
    assert os.read(read_fd, 1) == bytes([signal.SIGTERM])


def test_nested_job_shares_the_wakeup_fd(unnoticed):
    """The outer job is still interrupted when the inner one has ended."""
    with interrupts.handle_signals():
        with interrupts.handle_signals():
            pass
        _is_interrupted(unnoticed)


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_forked_child_leaves_the_wakeup_fd_to_its_parent(unnoticed):
    """After the child unwound the same context managers, signals still interrupt the parent."""
    handling = interrupts.handle_signals()
    handling.__enter__()
    child = os.fork()
    if not child:
        handling.__exit__(None, None, None)
        os._exit(0)

    assert os.waitpid(child, 0)[1] == 0
    _is_interrupted(unnoticed)
    handling.__exit__(None, None, None)


@pytest.mark.parametrize("moment", ["__enter__", "__exit__"])
def test_signal_while_handlers_are_installed_is_kept(monkeypatch, moment):
    """A signal interrupts the job from the first handler that is installed to the last that is removed."""
    original = getattr(SignalWakeup, moment)

    def signalled(self, *args):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *args)

    monkeypatch.setattr(SignalWakeup, moment, signalled)

    with pytest.raises(JobInterrupted), interrupts.handle_signals():
        interruptible(lambda: None)


def test_block_leaves_nothing_behind():
    """The thread, its pipe and the wakeup fd are gone."""
    before = _pipes()
    with interrupts.handle_signals():
        [pipe] = _pipes() - before

    until(lambda: pipe not in _pipes())
    assert signal.set_wakeup_fd(-1) == -1
    until(lambda: "cloudrun_jobs signals" not in {thread.name for thread in threading.enumerate()})


def _pipes() -> set[str]:
    """Return the pipes of which this process has an end open."""
    names = set()
    for fd in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # That of the listing itself.
            names.add(str(fd.readlink()))
    return {name for name in names if name.startswith("pipe:")}


def test_handler_of_the_job_gets_no_wakeup_signals():
    """A job that handles SIGUSR1 itself receives none of ours."""
    received = []
    with interrupts.handle_signals():
        previous = signal.signal(LEASE_LOST_SIGNAL, lambda number, frame: received.append(number))
        with pytest.raises(JobInterrupted):
            interruptible(partial(os.kill, os.getpid(), signal.SIGTERM))
        signal.signal(LEASE_LOST_SIGNAL, previous)

    assert not received
