"""Run the coroutine of an `async def run()` in its own event loop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

from asgiref.sync import async_to_sync

from cloudrun_jobs.process.deferral import call_or_defer, in_main_thread, interrupts_received_by


def run_coroutine(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of the coroutine. An interrupt of this thread cancels it, and is raised after its cleanup.

    Its thread-sensitive synchronous code, such as Django's ORM, runs in this thread.
    """
    running = _Running(coroutine)
    with interrupts_received_by(running.interrupt), _sigint_is_deferrable():
        try:
            # Never in an ASGI server's event loop: a blocking job would stall it, and `sys.exit()` would end it.
            return async_to_sync(running.main, force_new_loop=True)()
        except asyncio.CancelledError as error:
            if running.interrupted_by is None:
                raise RuntimeError("The coroutine of run() was cancelled.") from error
            cause = error
    raise running.interrupted_by from cause


class _Running:
    """A coroutine, and the exception that interrupted it. Signal handlers call `interrupt()`."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.interrupted_by: BaseException | None = None
        self._coroutine = coroutine
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None

    async def main(self) -> Any:
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._work())
        if self.interrupted_by is not None:
            self._cancel()
        while not self._task.done():
            # An ASGI server whose client has disconnected cancels this task. The work goes on.
            with suppress(asyncio.CancelledError):
                await asyncio.wait([self._task])
        result, error = self._task.result()
        if error is not None:
            raise error
        return result

    async def _work(self) -> tuple[Any, BaseException | None]:
        """Return the result, or an exception that a task would raise in the event loop as well."""
        try:
            return await self._coroutine, None
        except (SystemExit, KeyboardInterrupt) as error:
            return None, error

    def interrupt(self, error: BaseException) -> None:
        self.interrupted_by = error
        if self._loop is not None:
            with suppress(RuntimeError):  # The loop is closed: the work is done.
                self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


@contextmanager
def _sigint_is_deferrable() -> Iterator[None]:
    """Make Ctrl-C interrupt the coroutine too; a second one raises `KeyboardInterrupt` at once."""
    if not in_main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _on_sigint)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _on_sigint(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    call_or_defer(_raise_keyboard_interrupt)


def _raise_keyboard_interrupt() -> NoReturn:
    raise KeyboardInterrupt
