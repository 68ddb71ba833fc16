"""Signals that interrupt the code of locks leave them usable."""

from __future__ import annotations

import contextlib
import gc
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import coverage
import pytest
from django.core.management import call_command

from cloudrun_jobs.exceptions import LeaseLost, LockMisused
from cloudrun_jobs.locks import LockManager, current
from cloudrun_jobs.locks.local import LocalLocks
from cloudrun_jobs.locks.timer import timer
from cloudrun_jobs.process import deferral
from tests.jobs.management.commands.echo import Command
from tests.locks.workers import until

pytestmark = pytest.mark.django_db


class Alarm(BaseException):
    """Raised by the signal handler of these tests."""


def _raise() -> None:
    raise Alarm


@pytest.fixture
def alarm() -> Iterator[Callable[[], None]]:
    """Send a signal whose handler raises, now or later."""
    previous = signal.signal(signal.SIGALRM, lambda number, frame: deferral.call_or_defer(_raise))
    yield lambda: signal.raise_signal(signal.SIGALRM)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


def test_signal_raises_outside_of_critical_sections(alarm):
    """The exception is raised at once."""
    with pytest.raises(Alarm):
        alarm()


def test_critical_section_is_not_interrupted(alarm):
    """The exception is raised once, at the end of the outermost critical section."""
    done = []

    @deferral.uninterruptible
    def work() -> None:
        deferral.uninterruptible(alarm)()
        done.append("after the inner section")

    with pytest.raises(Alarm):
        work()

    assert done == ["after the inner section"]
    deferral.uninterruptible(lambda: None)()


@pytest.mark.parametrize("before", [True, False])
def test_interruptible_code_in_a_critical_section_is_interrupted(alarm, before):
    """The exception is raised before or in interruptible code, and deferred again after it."""
    done = []

    @deferral.uninterruptible
    def work() -> None:
        if before:
            alarm()
        with contextlib.suppress(Alarm):
            deferral.interruptible(pytest.fail if before else alarm)
            done.append("not interrupted")
        alarm()
        done.append("after the second signal")

    with pytest.raises(Alarm):
        work()

    assert done == ["after the second signal"]


def test_critical_section_of_another_thread_defers_nothing(alarm):
    """Handlers run in the main thread, and only its critical sections count."""
    entered, over = threading.Event(), threading.Event()

    def wait() -> None:
        with deferral.defer_interrupts():
            entered.set()
            over.wait(20)

    thread = threading.Thread(target=wait)
    thread.start()
    assert entered.wait(20)
    with pytest.raises(Alarm):
        alarm()
    over.set()
    thread.join(20)


@pytest.fixture
def _without_callbacks() -> Iterator[None]:
    """An exception that a handler raises in a callback of the garbage collector, which Hypothesis has, is lost.

    One in coverage, which acquires locks as it traces, leaves one held.
    """
    measuring = coverage.Coverage.current()
    if measuring:
        measuring.stop()
    gc.disable()
    yield
    gc.enable()
    if measuring:
        measuring.start()


@pytest.mark.usefixtures("_without_callbacks")
def test_signals_at_random_times_leave_the_locks_usable(alarm):
    """After interruptions anywhere in acquiring and releasing, a lock is acquired, renewed and released."""
    chance, ends = random.Random(), time.monotonic() + 2
    while time.monotonic() < ends:
        _interrupt_soon(chance)

    manager = LockManager(f"after the signals {uuid4()}")
    manager.await_lock(timeout=5)
    keeper = manager._keeper
    first = keeper.deadline
    keeper.renew_soon()
    until(lambda: keeper.deadline > first, 20)
    assert manager.release_lock(raise_exception=True)


def _interrupt_soon(chance: random.Random) -> None:
    manager = LockManager(f"signals {uuid4()}")
    try:
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 2e-4))
        for _ in range(1000):
            manager.try_lock()
            manager.release_lock()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Alarm:
        manager.release_lock()
    except LockMisused:
        pytest.fail("a lease was acquired and not kept")


class Interrupted(LocalLocks):
    """Sends SIGTERM to this process during an operation, once, after the server has done it."""

    while_acquiring = False
    while_releasing = False

    def acquire(self, *args: Any) -> Any:
        answer = super().acquire(*args)
        if self.while_acquiring:
            type(self).while_acquiring = False
            signal.raise_signal(signal.SIGTERM)
        return answer

    def release(self, *args: Any) -> bool:
        if self.while_releasing:
            type(self).while_releasing = False
            signal.raise_signal(signal.SIGTERM)
        return super().release(*args)


@pytest.fixture
def terminated(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Run a job that gets SIGTERM during that operation; return its calls of `run()`."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test", "LOCKS": {"BACKEND": f"{__name__}.Interrupted"}}

    def run(moment: str) -> list[str]:
        began: list[str] = []
        monkeypatch.setattr(Interrupted, moment, True)
        monkeypatch.setattr(Command, "run", lambda self, *args, **options: began.append("run"))
        with pytest.raises(SystemExit) as caught:
            call_command("echo")
        assert caught.value.code == 143
        return began

    return run


def test_sigterm_while_acquiring(terminated):
    """The job does not start, and the lock that was just granted is released."""
    assert terminated("while_acquiring") == []
    assert current().holders("crj1:") == []


def test_sigterm_while_releasing(terminated):
    """The locks are released all the same."""
    assert terminated("while_releasing") == ["run"]
    assert current().holders("crj1:") == []


def test_lease_lost_while_acquiring_comes_before_the_work(monkeypatch):
    """The job raises `LeaseLost` instead of starting."""
    monkeypatch.setattr(Command, "run", lambda self, *args, **options: pytest.fail("began"))
    watch = timer.watch

    def lose(keeper: Any) -> None:
        watch(keeper)
        keeper.mark_lost("for this test")

    monkeypatch.setattr(timer, "watch", lose)

    with pytest.raises(LeaseLost, match="for this test"):
        call_command("echo")
