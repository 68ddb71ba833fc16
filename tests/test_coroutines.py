"""`async def run()`: its result, its errors, its database access, and what interrupts it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from cloudrun_jobs.exceptions import JobFailed, JobInterrupted
from cloudrun_jobs.execution import interrupts
from cloudrun_jobs.execution.coroutines import run_coroutine
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.process.deferral import interruptible
from tests.jobs.management.commands import echo

pytestmark = pytest.mark.django_db(transaction=True)

FOREVER = 60.0  # seconds

Run = Callable[..., Coroutine[Any, Any, Any]]


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], echo.Command]:
    """Return a job with this coroutine function as its run()."""

    def make(run: Run) -> echo.Command:
        monkeypatch.setattr(echo.Command, "run", run)
        return echo.Command()

    return make


def interrupted(work: Run, *signals: int) -> list[str]:
    """Send the signals to this process while the coroutine waits; return what it did until its end."""
    steps: list[str] = []

    async def run() -> None:
        for number in signals:
            asyncio.get_running_loop().call_soon(os.kill, os.getpid(), number)
        await work(steps)

    with interrupts.handle_signals(), pytest.raises((JobInterrupted, KeyboardInterrupt)) as raised:
        interruptible(lambda: run_coroutine(run()))
    return [*steps, raised.type.__name__]


async def wait_and_clean_up(steps: list[str]) -> None:
    try:
        await asyncio.sleep(FOREVER)
    except asyncio.CancelledError:
        steps.append("cancelled")
        raise
    finally:
        await asyncio.sleep(0)
        await sync_to_async(steps.append)("cleaned up")


def test_result_and_records_are_those_of_a_function(job):
    """The coroutine reads its own record, and its result is returned and stored."""

    async def run(self, *args, **options):
        await asyncio.sleep(0)
        self.progress(1, 2)
        return {"runs": await JobRun.objects.filter(status=Status.RUNNING).acount()}

    operation = job(run).delay()

    assert operation.result() == {"runs": 1}
    assert JobRun.objects.get(pk=operation.run_id).result == {"runs": 1}


def test_result_from_async_code(job):
    """`await adelay()` runs the coroutine while the caller's loop keeps running."""

    async def run(self, *args, **options):
        await asyncio.sleep(0)
        return threading.current_thread() is threading.main_thread()

    async def call() -> Any:
        return (await job(run).adelay()).result()

    assert asyncio.run(call()) is False


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("no"), ValueError),
        (SystemExit(3), JobFailed),
        (asyncio.CancelledError(), RuntimeError),
    ],
    ids=["exception", "exit", "cancelled"],
)
def test_error_fails_the_run(job, error, expected):
    """An exception of the coroutine is recorded; its own cancellation is a failure as well."""

    async def run(self, *args, **options):
        await asyncio.sleep(0)
        raise error

    with pytest.raises(expected):
        job(run).delay()

    assert JobRun.objects.get().status == Status.FAILED


def test_exit_of_a_subtask_fails_the_run(job):
    """A task of the coroutine that calls sys.exit() ends the job's own event loop only."""

    async def run(self, *args, **options):
        await asyncio.gather(asyncio.to_thread(int), asyncio.create_task(leave()))

    async def leave() -> None:
        sys.exit(4)

    with pytest.raises(JobFailed, match="4"):
        job(run).delay()


def test_sigterm_cancels_the_coroutine():
    """Its cleanup may await and use the database's thread; then JobInterrupted is raised."""
    assert interrupted(wait_and_clean_up, signal.SIGTERM) == ["cancelled", "cleaned up", "JobInterrupted"]


def test_ctrl_c_cancels_the_coroutine():
    """Ctrl-C does not leave the event loop running."""
    # A shell that starts this process in the background has it ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert interrupted(wait_and_clean_up, signal.SIGINT) == ["cancelled", "cleaned up", "KeyboardInterrupt"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_move_to_another_machine_does_not_cancel():
    """SIGCONT interrupts a job only if it has lost a lock in the meantime."""

    async def run() -> str:
        os.kill(os.getpid(), signal.SIGCONT)
        await asyncio.sleep(0.01)
        return "done"

    with interrupts.handle_signals():
        assert interruptible(lambda: run_coroutine(run())) == "done"


def test_sigterm_interrupts_synchronous_code_of_the_coroutine():
    """A nested job in the main thread is interrupted at once, not at its end."""

    def nested_job() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(FOREVER)

    async def run(steps: list[str]) -> None:
        try:
            await sync_to_async(interruptible)(nested_job)
        finally:
            steps.append("left")

    assert interrupted(run) == ["left", "JobInterrupted"]


def test_coroutine_that_completes_is_not_interrupted():
    """As in a synchronous run(), work that is done despite SIGTERM is a success."""

    async def run() -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await asyncio.sleep(FOREVER)
        except asyncio.CancelledError:
            return "done"
        return "never"

    with interrupts.handle_signals():
        assert interruptible(lambda: run_coroutine(run())) == "done"


def test_sigterm_ends_a_command(tmp_path):
    """`manage.py <job>` with an async run() cleans up, records the outcome, and exits with 143."""
    environment = {**os.environ, "TESTS_DATABASE": str(tmp_path / "db.sqlite3")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=60
    )

    assert (done.returncode, done.stdout.splitlines()) == (143, ["cleaned up"]), done.stderr


SCRIPT = """
import asyncio, os, signal
from cloudrun_jobs.execution import interrupts
from cloudrun_jobs.execution.coroutines import run_coroutine
from cloudrun_jobs.process.deferral import interruptible

async def run():
    os.kill(os.getpid(), signal.SIGTERM)
    try:
        await asyncio.sleep(300)
    finally:
        print("cleaned up", flush=True)

with interrupts.handle_signals():
    interruptible(lambda: run_coroutine(run()))
"""
