"""A handle on an execution of Cloud Run that tells the truth about its outcome.

Built on google-api-core's own polling future, with three differences. It polls the Execution, because operations
live outside the job and a role on the job does not cover them. It does not give up after 900 seconds. And it
counts tasks, because the operation of a cancelled execution ends without an error.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock, Thread
from typing import TYPE_CHECKING, Any

from google.api_core import exceptions as api
from google.api_core.future.polling import DEFAULT_POLLING, PollingFuture
from google.api_core.operation import Operation as GoogleOperation
from google.api_core.retry import Retry
from google.cloud.run_v2 import Condition, Execution
from google.longrunning.operations_pb2 import Operation as LongRunningOperation

from ...exceptions import JobCancelled, JobFailed, ServiceError
from ...operations import Operation
from . import clients
from .errors import Call, translated

if TYPE_CHECKING:
    from . import CloudRunBackend

POLLING = DEFAULT_POLLING.with_timeout(None)

# After these the next poll may see more: they say nothing of the execution.
PASSING = (api.ServiceUnavailable, api.DeadlineExceeded, api.InternalServerError, api.TooManyRequests)
GET = Call(permission="run.executions.get", role="roles/run.viewer")
CANCEL = Call(permission="run.executions.cancel", role="roles/run.developer")
ENDED = (Condition.State.CONDITION_SUCCEEDED, Condition.State.CONDITION_FAILED)
CANCELLED = (Condition.ExecutionReason.CANCELLED, Condition.ExecutionReason.CANCELLING)


class CloudRunOperation(PollingFuture, Operation):
    """What `delay()` returns outside the environments "local" and "test"."""

    def __init__(self, operation: GoogleOperation, run_id: str, backend: CloudRunBackend) -> None:
        super().__init__(polling=POLLING)
        self.run_id = run_id
        self._operation: LongRunningOperation = operation.operation
        self._execution: Execution = operation.metadata
        self._endpoint, self._rpc_timeout = backend.endpoint, backend.rpc_timeout
        self._lock = RLock()

    def __repr__(self) -> str:
        return f"<CloudRunOperation {self.execution_name}>"

    @property
    def operation(self) -> LongRunningOperation:
        return self._operation

    @property
    def metadata(self) -> Execution:
        return self._execution

    @property
    def execution_name(self) -> str:
        return str(self._execution.name)

    @property
    def console_url(self) -> str:
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
        client = clients.executions(self._endpoint)
        with translated(self.execution_name, CANCEL, endpoint=self._endpoint):
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

    def _wait_for_callbacks(self) -> None:
        """Wait for the end; an error that polling cannot outlive ends it too, so that callbacks are called."""
        try:
            self.exception()
        except ServiceError as error:
            self._end(error)

    def _look(self, retry: Retry | None) -> None:
        """Read the execution once. An error that may pass leaves it running: the next poll reads it again."""
        client = clients.executions(self._endpoint)
        with translated(self.execution_name, GET, endpoint=self._endpoint):
            try:
                execution = client.get_execution(name=self.execution_name, retry=retry, timeout=self._rpc_timeout)
            except PASSING:
                return
            except api.NotFound:
                self._end(JobFailed(f"{self.execution_name}: deleted before its outcome was read."))
                return
        self._execution = execution
        if has_ended(execution):
            self._end(failure(execution))

    def _end(self, error: Exception | None) -> None:
        """Settle the outcome, once, whichever thread saw it first."""
        with self._lock:
            if self._result_set:
                return
            if error:
                self.set_exception(error)
            else:
                # The service knows no results; the run's record will.
                self.set_result(None)


def has_ended(execution: Execution) -> bool:
    """Say whether all is over. An execution whose image is missing fails without a completion time."""
    return bool(execution.completion_time) or _completed(execution).state in ENDED


def failure(execution: Execution) -> JobFailed | None:
    """Return what went wrong with an execution that ended, or None if every task of it succeeded."""
    if execution.task_count and execution.succeeded_count == execution.task_count:
        return None
    completed = _completed(execution)
    words = f"{execution.name}: {execution.succeeded_count} of {execution.task_count} tasks succeeded."
    hint = " ".join(filter(None, (completed.message, execution.log_uri and f"Logs: {execution.log_uri}")))
    if execution.cancelled_count or completed.execution_reason in CANCELLED:
        return JobCancelled(words, hint=hint)
    return JobFailed(words, hint=hint)


def _completed(execution: Execution) -> Condition:
    """The condition that tells how it ended; their order is not stable, and it may be missing at first."""
    return next((condition for condition in execution.conditions if condition.type_ == "Completed"), Condition())
