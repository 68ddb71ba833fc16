"""Signals in a process of a worker's pool, which has handlers of its own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from cloudrun_jobs import environ
from cloudrun_jobs.exceptions import JobInterrupted
from cloudrun_jobs.execution import deadlines, interrupts, termination
from cloudrun_jobs.execution.termination import Termination
from cloudrun_jobs.process.deferral import interruptible

SIGNALS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1)


@pytest.fixture(autouse=True)
def received(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Install handlers of a worker; return the signals that they receive."""
    monkeypatch.setattr(termination, "ignored_signals", set())  # An earlier test may have been a container.
    numbers: list[int] = []
    before = {each: signal.signal(each, lambda number, frame: numbers.append(number)) for each in SIGNALS}
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def _pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environ, "_pool_process", os.getpid())


def _run(work: Callable[[], object], timeout: float = 600) -> Termination:
    """Call `work` as the code of a job; return the state of its interruption."""
    with interrupts.handle_signals(timeout) as terminated:
        interruptible(work)
    return terminated


@pytest.mark.usefixtures("_pool")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_shutdown_and_revocation_interrupt_the_job(number: int) -> None:
    """The worker's shutdown sends SIGQUIT, a revocation SIGTERM: the job is interrupted, once."""

    def work() -> None:
        with pytest.raises(JobInterrupted, match="interrupted"):
            signal.raise_signal(number)
        signal.raise_signal(number)

    assert _run(work).is_requested()


@pytest.mark.usefixtures("_pool")
def test_a_signal_during_a_critical_section_waits_for_its_end() -> None:
    """While the record is written nothing is raised; the job is interrupted before its next step."""
    with interrupts.handle_signals(600):
        signal.raise_signal(signal.SIGQUIT)
        with pytest.raises(JobInterrupted):
            interruptible(lambda: pytest.fail("It ran."))


@pytest.mark.usefixtures("_pool")
def test_the_workers_handlers_return_after_the_job(received: list[int]) -> None:
    """Between two jobs the process reacts as the worker expects."""
    _run(lambda: None)
    for number in SIGNALS:
        signal.raise_signal(number)

    assert received == list(SIGNALS)


@pytest.mark.usefixtures("_pool")
def test_an_early_sigusr1_is_no_time_limit() -> None:
    """The signal has other causes; the clock decides."""
    terminated = _run(lambda: signal.raise_signal(signal.SIGUSR1))

    assert not terminated.is_requested()


@pytest.mark.usefixtures("_pool")
def test_sigusr1_at_the_time_limit_interrupts_the_job() -> None:
    """The reason is the timeout, even if the worker's clock is slightly ahead."""
    with pytest.raises(JobInterrupted, match="timeout"):
        _run(lambda: signal.raise_signal(signal.SIGUSR1), timeout=deadlines.TIME_LIMIT_TOLERANCE_SECONDS - 0.5)


@pytest.mark.usefixtures("_pool")
def test_a_job_that_ignores_the_signal_is_overdue_after_six_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its outcome is recorded then, although its timeout is far away."""
    with interrupts.handle_signals(600) as terminated:
        signal.raise_signal(signal.SIGQUIT)
        assert not terminated.is_overdue()
        later = time.monotonic() + deadlines.POOL_CLEANUP_SECONDS + 0.1
        monkeypatch.setattr(time, "monotonic", lambda: later)
        assert terminated.is_overdue()
        monkeypatch.undo()
        with pytest.raises(JobInterrupted):
            interruptible(lambda: None)


def test_another_process_keeps_its_handlers(received: list[int]) -> None:
    """A server that runs a job keeps its handlers of these signals."""
    _run(lambda: [signal.raise_signal(number) for number in SIGNALS])

    assert received == list(SIGNALS)


@pytest.mark.usefixtures("_pool")
def test_a_fork_of_the_process_is_not_of_the_pool() -> None:
    """A job's own child process ends at SIGTERM."""
    with interrupts.handle_signals(600):
        child = os.fork()
        if not child:
            alone = not environ.in_pool_process() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
            os._exit(0 if alone else 1)

    assert os.waitpid(child, 0)[1] == 0
