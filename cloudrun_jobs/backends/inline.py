"""Runs a job at once, in the process that asks for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import InvalidStateError
from contextlib import suppress
from threading import Thread
from typing import Any

from django.db import connections

from cloudrun_jobs import conf
from cloudrun_jobs.backends.base import Backend, Request
from cloudrun_jobs.exceptions import JobCancelled, JobFailed
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.models.querysets import LIVENESS_GRACE_SECONDS
from cloudrun_jobs.operations import PROCESS_DIED, MockOperation
from cloudrun_jobs.signals import run_reconciled

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0  # Seconds between two looks at the record.


class InlineBackend(Backend):
    """For the environments "local" and "test": no cloud, no waiting, the same road through the arguments."""

    runs_in_process = True
    supports_reserve = True  # It starts the run at once.

    def submit(self, run: JobRun, request: Request, *, timeout: float | None = None) -> MockOperation:
        operation = MockOperation(request.job, request.run_id)
        operation.set_result(request.work() if request.work else None)
        return operation

    def operation(self, run: JobRun) -> MockOperation:
        """Return a handle that has ended as the run did, or follows it to its end."""
        operation = PollingOperation(run.job, str(run.pk))
        if run.is_finished:
            operation.end_as(run)
        return operation


class PollingOperation(MockOperation):
    """The handle on a run that another thread, or another process, does: its record tells how it ends."""

    _silent_since: float | None = None

    def done(self, retry: Any = None) -> bool:
        if not super().done():
            self._look()
        return super().done()

    def result(self, timeout: float | None = None, retry: Any = None, polling: Any = None) -> Any:
        self._wait(timeout)
        return super().result()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._wait(timeout)
        return super().exception()

    def cancel(self) -> bool:
        """Take back a run that has not begun; nothing stops one that works in another thread."""
        run = JobRun.objects.filter(pk=self.run_id, status=Status.PENDING).first()
        return run is not None and run.cancel()

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        super().add_done_callback(fn)
        if not super().done():
            Thread(target=self._follow, name="cloudrun_jobs callbacks", daemon=True).start()

    def end_as(self, run: JobRun) -> None:
        """End as the run did."""
        with suppress(InvalidStateError):  # Another thread saw it, too.
            if run.status in {Status.SUCCEEDED, Status.SKIPPED}:
                self.set_result(run.return_value)
            else:
                self.set_exception(_failure(run))

    def _look(self) -> None:
        """Read the record; give up a run that stays silent while it is listened to, as its process is dead."""
        run = JobRun.objects.filter(pk=self.run_id).first()
        if run is None:
            self.end_as(JobRun(pk=self.run_id, command=self._job, status=Status.LOST, reason="deleted"))
        elif not run.is_finished and self._is_dead(run) and run.apply_state(PROCESS_DIED, run.execution):
            run_reconciled.send_robust(JobRun, run=run)
        if run and run.is_finished:
            self.end_as(run)

    def _is_dead(self, run: JobRun) -> bool:
        # About one with an execution others can be asked, and a transaction may not see what is told meanwhile.
        this = JobRun.objects.filter(pk=run.pk, environment=conf.load().environment, execution=None)
        in_transaction = connections[this.db].in_atomic_block
        if in_transaction or not (this.silent() | this.unsent()).exists():
            self._silent_since = None
            return False
        self._silent_since = self._silent_since or time.monotonic()
        return time.monotonic() - self._silent_since >= LIVENESS_GRACE_SECONDS

    def _wait(self, timeout: float | None) -> None:
        deadline, pause = time.monotonic() + (timeout or 0), FIRST_PAUSE
        while not self.done():
            left = LONGEST_PAUSE if timeout is None else deadline - time.monotonic()
            if left <= 0:
                words = f"Run {self.run_id} of {self._job} has not ended within {timeout} seconds."
                raise TimeoutError(words)
            time.sleep(min(pause, left))
            pause = min(pause * 2, LONGEST_PAUSE)

    def _follow(self) -> None:
        try:
            self._wait(None)
        finally:
            connections.close_all()  # This thread's.


def _failure(run: JobRun) -> JobFailed:
    if run.status == Status.CANCELLED:
        return JobCancelled(f"{run}: {run.reason}.")
    return JobFailed(f"{run}: {run.error_class or run.reason}: {run.error_message}")
