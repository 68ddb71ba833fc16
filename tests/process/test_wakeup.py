"""Signals that end no system call: the job is interrupted all the same, and others' handlers are left alone."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from cloudrun_jobs.exceptions import JobInterrupted
from cloudrun_jobs.execution import interrupts
from cloudrun_jobs.process.deferral import interruptible
from cloudrun_jobs.process.wakeup import SignalWakeup
from tests.locks.workers import until

SLEEP = Path(f"/proc/self/task/{threading.main_thread().native_id}/wchan")
LONG = 40.0

pytestmark = pytest.mark.skipif(not SLEEP.exists(), reason="says by /proc what a thread waits for")


def _sleeps() -> bool:
    return "nanosleep" in SLEEP.read_text()


def _signal_unnoticed(number: int) -> None:
    """Have this thread take a signal of the process while the main thread sleeps."""
    until(_sleeps)
    signal.pthread_kill(threading.get_ident(), number)


def _is_interrupted(unnoticed: threading.Thread) -> None:
    began = time.monotonic()
    unnoticed.start()
    with pytest.raises(JobInterrupted):
        interruptible(partial(time.sleep, LONG))

    assert time.monotonic() - began < LONG


@pytest.fixture
def unnoticed() -> Iterator[threading.Thread]:
    """A thread that takes SIGTERM once the main thread sleeps."""
    thread = threading.Thread(target=_signal_unnoticed, args=[signal.SIGTERM])
    yield thread
    thread.join()


def test_a_signal_that_another_thread_takes_ends_the_sleep(unnoticed):
    """Python notes it, and would not act on it until the sleep is over."""
    with interrupts.handle_signals():
        _is_interrupted(unnoticed)


def test_an_event_loop_keeps_its_own_ear():
    """Whoever hears of signals already goes on to; signals that end a call are acted on without us."""
    ear, mouth = os.pipe()
    os.set_blocking(mouth, False)
    signal.set_wakeup_fd(mouth)
    try:
        with interrupts.handle_signals(), pytest.raises(JobInterrupted):
            interruptible(partial(os.kill, os.getpid(), signal.SIGTERM))
    finally:
        assert signal.set_wakeup_fd(-1) == mouth
    assert os.read(ear, 1) == bytes([signal.SIGTERM])


def test_a_job_in_a_job_hears_with_the_same_ear(unnoticed):
    """And when it has ended, the outer one is still interrupted."""
    with interrupts.handle_signals():
        with interrupts.handle_signals():
            pass
        _is_interrupted(unnoticed)


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_child_leaves_the_hearing_to_its_parent(unnoticed):
    """It goes out by the same door; after that, signals that end no call are heard of as before."""
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
def test_a_signal_while_the_handlers_are_set_is_kept(monkeypatch, moment):
    """From the first handler on there is a job to interrupt, and until the last is taken back."""
    original = getattr(SignalWakeup, moment)

    def signalled(self, *args):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *args)

    monkeypatch.setattr(SignalWakeup, moment, signalled)

    with pytest.raises(JobInterrupted), interrupts.handle_signals():
        interruptible(lambda: None)


def test_nothing_is_left_when_it_ends():
    """Neither the thread, nor its pipe, nor the ear."""
    before = _open_files()
    with interrupts.handle_signals():
        assert _open_files() == before + 2

    until(lambda: _open_files() == before)
    assert signal.set_wakeup_fd(-1) == -1
    until(lambda: "cloudrun_jobs signals" not in {thread.name for thread in threading.enumerate()})


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_handler_that_the_job_sets_for_itself_is_not_knocked_at():
    """SIGUSR1 is then the job's, and hears of nothing that is not for it."""
    heard = []
    with interrupts.handle_signals():
        previous = signal.signal(interrupts.LEASE_LOST_SIGNAL, lambda number, frame: heard.append(number))
        with pytest.raises(JobInterrupted):
            interruptible(partial(os.kill, os.getpid(), signal.SIGTERM))
        signal.signal(interrupts.LEASE_LOST_SIGNAL, previous)

    assert not heard
