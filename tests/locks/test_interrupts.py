"""Signals that come at the worst of moments: nothing of the locks is left half done."""

from __future__ import annotations

import contextlib
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
    """What the handler of these tests raises."""


def _raise() -> None:
    raise Alarm


@pytest.fixture
def alarm() -> Iterator[Callable[[], None]]:
    """Sends a signal whose handler raises where it may."""
    previous = signal.signal(signal.SIGALRM, lambda number, frame: deferral.call_or_defer(_raise))
    yield lambda: signal.raise_signal(signal.SIGALRM)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


def test_a_signal_raises_where_nothing_is_shielded(alarm):
    """At once."""
    with pytest.raises(Alarm):
        alarm()


def test_a_shield_is_not_broken_off(alarm):
    """What the signal would have raised comes at the end of the outermost shield, once."""
    done = []

    @deferral.uninterruptible
    def work() -> None:
        deferral.uninterruptible(alarm)()
        done.append("after the inner shield")

    with pytest.raises(Alarm):
        work()

    assert done == ["after the inner shield"]
    deferral.uninterruptible(lambda: None)()


@pytest.mark.parametrize("before", [True, False])
def test_what_is_exposed_in_a_shield_is_broken_off(alarm, before):
    """Before it begins if the signal came before, and else in its midst; after it, the shield is whole again."""
    done = []

    @deferral.uninterruptible
    def work() -> None:
        if before:
            alarm()
        with contextlib.suppress(Alarm):
            deferral.interruptible(pytest.fail if before else alarm)
            done.append("not broken off")
        alarm()
        done.append("whole again")

    with pytest.raises(Alarm):
        work()

    assert done == ["whole again"]


def test_another_threads_shield_keeps_nothing_from_the_main_thread(alarm):
    """Handlers run in the main thread, and look at its shields alone."""
    shielded, over = threading.Event(), threading.Event()

    def wait() -> None:
        with deferral.defer_interrupts():
            shielded.set()
            over.wait(20)

    thread = threading.Thread(target=wait)
    thread.start()
    assert shielded.wait(20)
    with pytest.raises(Alarm):
        alarm()
    over.set()
    thread.join(20)


@pytest.fixture
def _unmeasured() -> Iterator[None]:
    """coverage takes locks as it traces, and an exception out of a handler would leave one held."""
    measuring = coverage.Coverage.current()
    if measuring:
        measuring.stop()
    yield
    if measuring:
        measuring.start()


@pytest.mark.usefixtures("_unmeasured")
def test_signals_at_any_moment_leave_the_locks_usable(alarm):
    """Whatever line of taking and giving back is interrupted: afterwards locks are taken, watched and renewed."""
    chance, ends = random.Random(), time.monotonic() + 2
    while time.monotonic() < ends:
        _interrupt_soon(chance)

    manager = LockManager(f"after the storm {uuid4()}")
    lease = manager.await_lock(timeout=5)
    first = lease.deadline
    lease.renew_soon()
    until(lambda: lease.deadline > first, 20)
    assert manager.release_lock(raise_exception=True)


def _interrupt_soon(chance: random.Random) -> None:
    manager = LockManager(f"storm {uuid4()}")
    try:
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 2e-4))
        for _ in range(1000):
            manager.try_lock()
            manager.release_lock()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Alarm:
        manager.release_lock()
    except LockMisused:
        pytest.fail("a lease was left between two stools")


class Interrupted(LocalLocks):
    """Gets a SIGTERM in the midst of an operation, as soon as the server has carried it out."""

    while_taking = False
    while_giving_back = False

    def acquire(self, *args: Any) -> Any:
        answer = super().acquire(*args)
        if self.while_taking:
            signal.raise_signal(signal.SIGTERM)
        return answer

    def release(self, *args: Any) -> bool:
        if self.while_giving_back:
            signal.raise_signal(signal.SIGTERM)
        return super().release(*args)


@pytest.fixture
def terminated(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Runs a job that gets SIGTERM at that moment; returns whether it began."""
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


def test_terminated_while_it_takes_its_locks(terminated):
    """The job does not begin, and the lock that was just granted is given back."""
    assert terminated("while_taking") == []
    assert current().holders("crj1:") == []


def test_terminated_while_it_gives_its_locks_back(terminated):
    """They are given back all the same."""
    assert terminated("while_giving_back") == ["run"]
    assert current().holders("crj1:") == []


def test_a_loss_that_is_told_while_locks_are_taken_comes_before_the_work(monkeypatch):
    """The job raises `LeaseLost` instead of beginning."""
    monkeypatch.setattr(Command, "run", lambda self, *args, **options: pytest.fail("began"))
    watch = timer.watch

    def lose(lease: Any) -> None:
        watch(lease)
        lease.mark_lost("for this test")

    monkeypatch.setattr(timer, "watch", lose)

    with pytest.raises(LeaseLost, match="for this test"):
        call_command("echo")
