"""The handle on an execution of Cloud Run.

It extends google-api-core's polling future. It polls the Execution, because a role on the job does not cover the
operation; it does not give up after 900 seconds; and it takes the result from the run's record, which it reads
more often than the Execution: the job writes it seconds before Cloud Run reports the end.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from threading import RLock, Thread
from typing import TYPE_CHECKING, Any

from django.core.exceptions import SynchronousOnlyOperation
from django.db import Error, connections
from google.api_core import exceptions as api
from google.api_core.future.polling import DEFAULT_POLLING, PollingFuture
from google.api_core.retry import Retry
from google.cloud.run_v2 import Execution
from google.longrunning.operations_pb2 import Operation as LongRunningOperation

from cloudrun_jobs.backends.base import TRANSIENT_ERRORS
from cloudrun_jobs.backends.cloudrun import clients
from cloudrun_jobs.backends.cloudrun.errors import ApiMethod, translate_errors
from cloudrun_jobs.backends.cloudrun.outcome import failure, state_of
from cloudrun_jobs.backoff import attempts
from cloudrun_jobs.exceptions import (
    CloudRunJobsError,
    JobCancelled,
    JobFailed,
    ResultUnavailable,
    ServiceError,
    sentence,
)
from cloudrun_jobs.locks import executions
from cloudrun_jobs.models import JobRun, Status, failures
from cloudrun_jobs.operations import ExecutionState, Operation
from cloudrun_jobs.process.commits import awaits_commit, is_marked

if TYPE_CHECKING:
    from cloudrun_jobs.backends.cloudrun import CloudRunBackend

POLLING = DEFAULT_POLLING.with_timeout(None)
RECORD_POLL_INTERVAL = 1.0  # seconds, at most

# The statuses in which a record decides. A run that is lost may still report its outcome.
DECISIVE = (Status.SUCCEEDED, Status.SKIPPED, Status.FAILED, Status.CANCELLED)
DETAILS_TIMEOUT_SECONDS = 1.0  # For the state of an execution whose record has ended.

UNLIMITED = PollingFuture._DEFAULT_VALUE

SUCCESSFUL = (Status.SUCCEEDED, Status.SKIPPED)  # A run that another execution superseded has not failed.
GET = ApiMethod(permission="run.executions.get", role="roles/run.viewer", polls=True)
CANCEL = ApiMethod(permission="run.executions.cancel", role="roles/run.developer")


class CloudRunOperation(PollingFuture, Operation):
    """The handle that `delay()` returns outside the environments "local" and "test"."""

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
        self._server, self._rpc_timeout = backend.server, backend.rpc_timeout
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
            self._read_record()
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
        if not self._result_set and not self._read_outcome():
            self._poll(retry, self._rpc_timeout)
        return bool(self._result_set)

    def cancel(self) -> bool:
        if not self.execution_name:
            run = JobRun.objects.filter(pk=self.run_id).first()
            if run is None and awaits_commit(self.run_id):
                raise self._not_sent_yet()
            return run is not None and run.cancel()
        client = clients.executions(self._server)
        with translate_errors(self.execution_name, CANCEL, endpoint=self._server.endpoint):
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
                    self._polling_thread = Thread(target=self._poll_until_done, daemon=True)
                    self._polling_thread.start()
                return
        fn(self)

    def get_state(self, retry: Retry | None = None, timeout: float | None = None) -> ExecutionState:
        """Read the execution once and return its state; a deleted execution is lost."""
        client = clients.executions(self._server)
        with translate_errors(self.execution_name, GET, endpoint=self._server.endpoint):
            try:
                name, timeout = self.execution_name, timeout or self._rpc_timeout
                self._execution = client.get_execution(name=name, retry=retry, timeout=timeout)
            except api.NotFound:
                return ExecutionState(status="lost", reason="deleted", message="Cloud Run has no such execution.")
        return state_of(self._execution)

    def _poll_until_done(self) -> None:
        """Poll until the callbacks can be called; a permanent error ends the operation as well."""
        try:
            self.exception()
        except ServiceError as error:
            self._finish(error)
        finally:
            connections.close_all()  # This thread's.

    def _read_record(self) -> None:
        """Read the run's execution from the record, or that the run will not be dispatched."""
        # Before it: the request may be recorded in between.
        is_pending = is_marked(self.run_id)
        run = JobRun.objects.filter(pk=self.run_id).first()
        if run is None and not is_pending:
            message = "It was deleted, or the transaction that requested the run was rolled back."
            self._finish(JobFailed(f"Run {self.run_id} has no record.", hint=message))
        elif run is not None:
            self._execution = Execution(name=run.execution_name, log_uri=run.log_uri)
            if run.is_finished and not run.execution_name:
                self._finish(_recorded_outcome(run))

    def _blocking_poll(self, timeout: Any = UNLIMITED, retry: Retry | None = None, polling: Any = None) -> None:
        """Wait for the end: poll the execution at Google's intervals, and the record in between."""
        if awaits_commit(self.run_id):
            raise self._not_sent_yet()
        if polling is not None:
            super()._blocking_poll(timeout, retry, polling)
            return
        seconds, interval, next_poll = None if timeout is UNLIMITED else timeout, POLLING._initial, 0.0
        for left in attempts(seconds, initial=0.1, maximum=RECORD_POLL_INTERVAL):
            is_due = time.monotonic() >= next_poll or left == 0
            if self.done(retry) if is_due else self._read_outcome():
                return
            if is_due:
                next_poll = time.monotonic() + interval
                interval = min(interval * POLLING._multiplier, POLLING._maximum)
        raise TimeoutError(f"Run {self.run_id} has not ended within {timeout} seconds.")

    def _not_sent_yet(self) -> CloudRunJobsError:
        message = f"Run {self.run_id}: its request is sent once the transaction that made it has committed."
        return CloudRunJobsError(message, hint="Wait for the result, or cancel the run, after the `atomic` block.")

    def _read_outcome(self) -> bool:
        """End if the record has the outcome; return True if the operation has ended."""
        if self._result_set:
            return True
        try:
            run = JobRun.objects.filter(pk=self.run_id, status__in=DECISIVE).first()
        except (Error, SynchronousOnlyOperation):  # The latter in async code.
            return False  # Cloud Run may answer.
        if run is None or run.is_interrupted:
            return False
        if run.execution_name:
            if run.execution_name != self._execution.name:
                self._execution = Execution(name=run.execution_name, log_uri=run.log_uri)
            with suppress(ServiceError):  # It has the counts and the message of the failure.
                self._poll(None, DETAILS_TIMEOUT_SECONDS)
        if not self._result_set:
            self._finish(_recorded_outcome(run))
        return True

    def _poll(self, retry: Retry | None, timeout: float) -> None:
        """Read the execution once. After a transient error the next poll reads it again."""
        if not self.execution_name:
            return
        try:
            state = self.get_state(retry, timeout)
        except TRANSIENT_ERRORS:
            return
        if state.status is not None and (outcome := self._settle(state)):
            self._finish(outcome)

    def _settle(self, state: ExecutionState) -> JobRun | Exception | None:
        """Apply the state to the record; return the record of a successful run, else the error.

        Return None if the run has another execution; follow that one from now on.
        """
        run = JobRun.objects.filter(pk=self.run_id).first() or JobRun(pk=self.run_id)
        parent, _, name = self.execution_name.rpartition("/")
        if run.execution and run.execution != name:
            self._execution = Execution(name=f"{parent}/{run.execution}")
            return None
        if (
            not executions.settle(run, state, name) and not run.is_finished
        ):  # Another process may have been faster.
            run = JobRun.objects.filter(pk=self.run_id).first() or run
            if not run.is_finished and run.awaits_reduction(state):
                return None  # `reconcile` starts an execution that calls reduce().
        if state.status == Status.LOST:
            return _recorded_outcome(run) if run.is_finished else JobFailed(f"{self.execution_name}: deleted.")
        if run.is_finished and run.status not in SUCCESSFUL:
            return _with_job_error(failure(self._execution), run)
        # After a success was recorded, only the exit of the container can have failed.
        if run.status != Status.SUCCEEDED and (failed := failure(self._execution)):
            return failed
        return run if run.has_result else _unavailable(self.execution_name)

    def _finish(self, outcome: JobRun | Exception) -> None:
        """Set the result or the exception, once, from whichever thread is first."""
        with self._lock:
            if self._result_set:
                return
            if isinstance(outcome, Exception):
                self.set_exception(outcome)
            else:
                self.set_result(outcome.return_value)


def _with_job_error(failed: JobFailed | None, run: JobRun) -> Exception | JobRun:
    """Return the service's error with the job's own error added."""
    if failed is None:
        return _recorded_outcome(run)
    return type(failed)(" ".join(filter(None, (failed.args[0], *_errors(run)))), hint=failed.hint)


def _errors(run: JobRun) -> tuple[str, str]:
    """Return the recorded error of the run, and the list of its failed tasks and items."""
    return sentence(": ".join(filter(None, (run.error_class, run.error_message)))), failures.describe(run)


def _recorded_outcome(run: JobRun) -> JobRun | Exception:
    """Return the outcome as recorded, for a run whose execution cannot be read."""
    if run.status in SUCCESSFUL:
        return run if run.has_result else _unavailable(run.execution_name or str(run))
    listed = failures.describe(run)
    message = f"{run}: {run.status}. {sentence(run.error_message)} {listed}".strip()
    return (JobCancelled if run.status == Status.CANCELLED else JobFailed)(message)


def _unavailable(execution: str) -> ResultUnavailable:
    alias = JobRun.objects.db
    return ResultUnavailable(
        f"{execution}: the execution succeeded, but its job recorded no result in {_described(alias)}.",
        hint="Give this process and the job the same database. If it is the same, see the logs of the job.",
    )


def _described(alias: str) -> str:
    """Name a database without the parts of its settings that may contain a password."""
    settings = connections[alias].settings_dict
    name, host, port = (str(settings.get(key) or "") for key in ("NAME", "HOST", "PORT"))
    name = "" if re.search(r"[=@?]|://", name) else name  # A connection string.
    place = ":".join(filter(None, (host.rpartition("@")[2], port)))
    return f"the database {alias!r} ({' '.join(filter(None, (connections[alias].vendor, name, place)))})"
