"""A handle on an execution of Cloud Run that tells the truth about its outcome.

Built on google-api-core's own polling future, with three differences. It polls the Execution, because operations
live outside the job and a role on the job does not cover them. It does not give up after 900 seconds. And it has
a run's record beside it, which knows the result.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock, Thread
from typing import TYPE_CHECKING, Any

from django.db import connections
from google.api_core import exceptions as api
from google.api_core.future.polling import DEFAULT_POLLING, PollingFuture
from google.api_core.retry import Retry
from google.cloud.run_v2 import Execution
from google.longrunning.operations_pb2 import Operation as LongRunningOperation

from cloudrun_jobs.backends.base import TRANSIENT_ERRORS
from cloudrun_jobs.backends.cloudrun import clients
from cloudrun_jobs.backends.cloudrun.errors import ApiMethod, translate_errors
from cloudrun_jobs.backends.cloudrun.outcome import failure, observed
from cloudrun_jobs.exceptions import JobCancelled, JobFailed, ServiceError
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.operations import ExecutionState, Operation

if TYPE_CHECKING:
    from cloudrun_jobs.backends.cloudrun import CloudRunBackend

POLLING = DEFAULT_POLLING.with_timeout(None)

# A run that stepped aside for another one has not failed.
GOOD = (Status.SUCCEEDED, Status.SKIPPED)

GET = ApiMethod(permission="run.executions.get", role="roles/run.viewer")
CANCEL = ApiMethod(permission="run.executions.cancel", role="roles/run.developer")


class CloudRunOperation(PollingFuture, Operation):
    """What `delay()` returns outside the environments "local" and "test"."""

    def __init__(
        self,
        run_id: str,
        backend: CloudRunBackend,
        *,
        execution: Execution | None = None,
        operation: LongRunningOperation | None = None,
    ) -> None:
        super().__init__(polling=POLLING)
        self.run_id = run_id
        self._execution = execution or Execution()
        self._operation = operation
        self._endpoint, self._rpc_timeout = backend.endpoint, backend.rpc_timeout
        self._lock = RLock()

    def __repr__(self) -> str:
        return f"<CloudRunOperation {self._execution.name or self.run_id}>"

    @property
    def operation(self) -> LongRunningOperation | None:
        return self._operation

    @property
    def metadata(self) -> Execution:
        return self._execution

    @property
    def execution_name(self) -> str:
        if not self._execution.name:
            self._learn()
        return str(self._execution.name)

    @property
    def console_url(self) -> str:
        if not self.execution_name:
            return ""
        _, project, _, region, _, _, _, execution = self.execution_name.split("/")
        page = "https://console.cloud.google.com/run/jobs/executions/details"
        return f"{page}/{region}/{execution}?project={project}"

    @property
    def logs_url(self) -> str:
        return str(self._execution.log_uri)

    def done(self, retry: Retry | None = None) -> bool:
        if not self._result_set:
            self._look(retry)
        return bool(self._result_set)

    def result(
        self, timeout: float | None = None, retry: Retry | None = None, polling: Retry | None = None
    ) -> Any:
        return super().result(timeout=timeout, retry=retry, polling=polling)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        error: BaseException | None = super().exception(timeout=timeout)
        return error

    def cancel(self) -> bool:
        if not self.execution_name:
            return JobRun.objects.get(pk=self.run_id).cancel()
        client = clients.executions(self._endpoint)
        with translate_errors(self.execution_name, CANCEL, endpoint=self._endpoint):
            try:
                client.cancel_execution(name=self.execution_name, timeout=self._rpc_timeout)
            except api.FailedPrecondition:
                return False  # "cannot be cancelled because it is not running"
        return True

    def cancelled(self) -> bool:
        return self.done() and isinstance(self._exception, JobCancelled)

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        with self._lock:
            if not self._result_set:
                self._done_callbacks.append(fn)
                if self._polling_thread is None:
                    self._polling_thread = Thread(target=self._wait_for_callbacks, daemon=True)
                    self._polling_thread.start()
                return
        fn(self)

    def get_state(self, retry: Retry | None = None) -> ExecutionState:
        """Ask once what became of the execution; one that Cloud Run does not know is lost."""
        client = clients.executions(self._endpoint)
        with translate_errors(self.execution_name, GET, endpoint=self._endpoint):
            try:
                name = self.execution_name
                self._execution = client.get_execution(name=name, retry=retry, timeout=self._rpc_timeout)
            except api.NotFound:
                return ExecutionState(status="lost", reason="deleted", message="Cloud Run has no such execution.")
        return observed(self._execution)

    def _wait_for_callbacks(self) -> None:
        """Wait for the end; an error that polling cannot outlive ends it too, so that callbacks are called."""
        try:
            self.exception()
        except ServiceError as error:
            self._end(error)
        finally:
            connections.close_all()  # This thread's.

    def _learn(self) -> None:
        """Ask the record which execution it is: the request may have been sent by now, or given up."""
        run = JobRun.objects.filter(pk=self.run_id).first()
        if run is None:
            self._end(JobFailed(f"Run {self.run_id}: its record was deleted before it was sent."))
        else:
            self._execution = Execution(name=run.execution_name, log_uri=run.log_uri)
            if run.is_finished and not run.execution_name:
                self._end(_told(run))

    def _look(self, retry: Retry | None) -> None:
        """Read the execution once. An error that may pass leaves it running: the next poll reads it again."""
        if not self.execution_name:
            return
        try:
            seen = self.get_state(retry)
        except TRANSIENT_ERRORS:
            return
        if seen.status is not None and (outcome := self._settled(seen)):
            self._end(outcome)

    def _settled(self, seen: ExecutionState) -> JobRun | Exception | None:
        """Bring the record in line with what was seen; return it for a success, else what went wrong.

        None if the execution stepped aside for another one, which is followed from then on.
        """
        run = JobRun.objects.filter(pk=self.run_id).first() or JobRun(pk=self.run_id)
        place, _, name = self.execution_name.rpartition("/")
        if run.execution and run.execution != name:
            self._execution = Execution(name=f"{place}/{run.execution}")
            return None
        run.apply_state(seen, name)
        if seen.status == Status.LOST:
            return _told(run) if run.is_finished else JobFailed(f"{self.execution_name}: deleted.")
        if run.is_finished and run.status not in GOOD:
            return _in_its_words(failure(self._execution), run)
        return failure(self._execution) or run

    def _end(self, outcome: JobRun | Exception) -> None:
        """Settle the outcome, once, whichever thread saw it first."""
        with self._lock:
            if self._result_set:
                return
            if isinstance(outcome, Exception):
                self.set_exception(outcome)
            else:
                self.set_result(outcome.return_value)


def _in_its_words(failed: JobFailed | None, run: JobRun) -> Exception | JobRun:
    """Return what the service says of a failure, with what the job said itself."""
    if failed is None:
        return _told(run)
    said = f" {run.error_class}: {run.error_message}" if run.error_class else ""
    return type(failed)(f"{failed.args[0]}{said}", hint=failed.hint)


def _told(run: JobRun) -> JobRun | Exception:
    """Return what the record says of a run that no execution can be asked about."""
    if run.status in GOOD:
        return run
    words = f"{run}: {run.get_status_display()}. {run.error_message}".strip()
    return (JobCancelled if run.status == Status.CANCELLED else JobFailed)(words)
