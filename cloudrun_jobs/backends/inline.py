"""Run jobs in the calling process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import InvalidStateError
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING, Any

from django.db import connections

from cloudrun_jobs import conf
from cloudrun_jobs.backends.base import Backend, Request
from cloudrun_jobs.backoff import attempts
from cloudrun_jobs.exceptions import DeclarationError, JobCancelled, JobFailed, sentence
from cloudrun_jobs.models import JobRun, Status, failures
from cloudrun_jobs.models.querysets import LIVENESS_GRACE_SECONDS
from cloudrun_jobs.operations import PROCESS_DIED, MockOperation
from cloudrun_jobs.signals import run_reconciled

if TYPE_CHECKING:
    from cloudrun_jobs.spec import JobSpec


class InlineBackend(Backend):
    """The backend of the environments "local" and "test": `submit()` runs the job."""

    runs_in_process = True
    supports_reserve = True  # It starts the run at once.
    supports_tasks = True  # Those of delay_many(), one after the other.

    #: The backend whose jobs it runs in "local" and "test". Calls that it rejects are rejected here too.
    replaced: Backend | None = None

    def problems(self, spec: JobSpec) -> Iterable[DeclarationError]:
        return self.replaced.problems(spec) if self.replaced else ()

    def check_tasks(self, request: Request) -> None:
        if self.replaced:
            self.replaced.check_tasks(request)

    def check_reserve(self) -> None:
        if self.replaced and not self.replaced.supports_reserve:
            self.replaced.check_reserve()

    def submit(self, run: JobRun, request: Request, *, timeout: float | None = None) -> MockOperation:
        operation = MockOperation(request.job, request.run_id)
        operation.set_result(request.work() if request.work else None)
        return operation

    def operation(self, run: JobRun) -> MockOperation:
        operation = PollingOperation(run.job, str(run.pk))
        if run.is_finished:
            operation.end_as(run)
        return operation


class PollingOperation(MockOperation):
    """A handle on a run of another thread or process, which polls the record for the outcome."""

    _silent_since: float | None = None

    def done(self, retry: Any = None) -> bool:
        if not super().done():
            self._poll()
        return super().done()

    def result(self, timeout: float | None = None, retry: Any = None, polling: Any = None) -> Any:
        self._wait(timeout)
        return super().result()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._wait(timeout)
        return super().exception()

    def cancel(self) -> bool:
        """Cancel a pending run. A run that has started in another thread cannot be stopped."""
        run = JobRun.objects.filter(pk=self.run_id, status=Status.PENDING).first()
        return run is not None and run.cancel()

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        super().add_done_callback(fn)
        if not super().done():
            Thread(target=self._wait_for_callbacks, name="cloudrun_jobs callbacks", daemon=True).start()

    def end_as(self, run: JobRun) -> None:
        """End with the outcome of the run."""
        with suppress(InvalidStateError):  # Another thread was faster.
            if run.status in {Status.SUCCEEDED, Status.SKIPPED}:
                self.set_result(run.return_value)
            else:
                self.set_exception(_failure(run))

    def _poll(self) -> None:
        """Read the record, and mark the run as lost if its process has died."""
        run = JobRun.objects.filter(pk=self.run_id).first()
        if run is None:
            run = JobRun(pk=self.run_id, command=self._job, status=Status.LOST, reason="deleted")
        elif not run.is_finished and self._is_dead(run) and run.apply_state(PROCESS_DIED, run.execution):
            run_reconciled.send_robust(JobRun, run=run)
        if run.is_finished:
            self.end_as(run)

    def _is_dead(self, run: JobRun) -> bool:
        """Return True if the run has been abandoned for the whole grace period."""
        # The reconciler can query a run's execution, and a transaction may not see new heartbeats.
        this = JobRun.objects.filter(pk=run.pk, environment=conf.load().environment, execution=None)
        in_transaction = connections[this.db].in_atomic_block
        if in_transaction or not this.abandoned(runs_in_process=True).exists():
            self._silent_since = None
            return False
        self._silent_since = self._silent_since or time.monotonic()
        return time.monotonic() - self._silent_since >= LIVENESS_GRACE_SECONDS

    def _wait(self, timeout: float | None) -> None:
        for _ in attempts(timeout, initial=0.05, maximum=2.0):
            if self.done():
                return
        raise TimeoutError(f"Run {self.run_id} of {self._job} has not ended within {timeout} seconds.")

    def _wait_for_callbacks(self) -> None:
        try:
            self._wait(None)
        finally:
            connections.close_all()  # This thread's.


def _failure(run: JobRun) -> JobFailed:
    if run.status == Status.CANCELLED:
        return JobCancelled(f"{run}: {run.reason}.")
    error = ": ".join(filter(None, (str(run), run.error_class or run.reason, run.error_message)))
    return JobFailed(" ".join(filter(None, (sentence(error), failures.describe(run)))))
