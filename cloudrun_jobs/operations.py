"""The handle on one execution that `delay()` returns, shaped like `google.api_core.operation.Operation`."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.apps import apps

from cloudrun_jobs.exceptions import JobCancelled
from cloudrun_jobs.process import commits


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionState:
    """The state of an execution at one moment, as the service reports it."""

    status: str | None  # "succeeded", "failed", "cancelled" or "lost"; None while it is running.
    reason: str = ""  # A stable identifier: "timeout", "exit_code".
    message: str = ""  # The service's own text.
    image: str = ""
    task_count: int = 1
    succeeded_count: int = 0
    failed_count: int = 0
    cancelled_count: int = 0
    retried_count: int = 0


PROCESS_DIED = ExecutionState(
    status="lost", reason="process_died", message="The process ended without recording an outcome."
)


class Operation(ABC):
    """A handle on one execution.

    It has the members of `google.api_core.operation.Operation`, and six more: `run_id`, `run`, `results()`,
    `execution_name`, `console_url` and `logs_url`. Unlike Google's, `result()` has no time limit by default, and
    raises if the execution was cancelled or a task failed.
    """

    #: The UUID of the run; the execution's container reads it from CLOUDRUN_JOBS_RUN_ID.
    run_id: str

    @property
    def run(self) -> Any:
        """The run's record as it is now: a `models.JobRun`, which this layer does not import."""
        return apps.get_model("cloudrun_jobs", "JobRun").objects.get(pk=self.run_id)

    @property
    @abstractmethod
    def operation(self) -> Any:
        """The long-running operation that the service returned to this process; `operation.name` is its name."""

    @property
    @abstractmethod
    def metadata(self) -> Any:
        """The `google.cloud.run_v2.Execution` as last seen: its counts, times and conditions."""

    @property
    @abstractmethod
    def execution_name(self) -> str:
        """The full name: `projects/P/locations/L/jobs/J/executions/E`; empty until the request is dispatched."""

    @property
    def console_url(self) -> str:
        """The execution's page in the Google Cloud console; empty for a run in this process."""
        return ""

    @property
    def logs_url(self) -> str:
        """The execution's logs in the Google Cloud console; empty for a run in this process."""
        return ""

    @abstractmethod
    def done(self, retry: Any = None) -> bool:
        """Return True if the execution has ended; one request."""

    def running(self) -> bool:
        """Return True if the execution has not ended; one request."""
        return not self.done()

    @abstractmethod
    def result(self, timeout: float | None = None, retry: Any = None, polling: Any = None) -> Any:
        """Wait for the end, then return what `run()` returned, in its JSON form.

        Raises `JobFailed` or `JobCancelled` unless every task succeeded; `TimeoutError` after `timeout` seconds.
        """

    def results(self, timeout: float | None = None) -> list[Any]:
        """Wait like `result()`, then return a list of what `run()` returned in each task, by index.

        The list has a `JobFailed` or `JobCancelled` for each task that did not succeed.
        """
        self.exception(timeout)
        return list(self.run.task_results())

    @abstractmethod
    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait like `result()`, then return the exception that it would raise, or None."""

    @abstractmethod
    def cancel(self) -> bool:
        """Cancel the execution; return False if it had ended."""

    @abstractmethod
    def cancelled(self) -> bool:
        """Return True if the execution was cancelled."""

    @abstractmethod
    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Call `fn(operation)` when the execution has ended, possibly in another thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MockExecution:
    """An execution in this process, with the field names of `google.cloud.run_v2.Execution`."""

    name: str
    uid: str
    job: str
    create_time: datetime
    start_time: datetime
    completion_time: datetime | None = None
    task_count: int = 1
    parallelism: int = 1
    running_count: int = 0
    succeeded_count: int = 0
    failed_count: int = 0
    cancelled_count: int = 0
    retried_count: int = 0
    reconciling: bool = False
    log_uri: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MockLongRunningOperation:
    """The commonly read fields of `google.longrunning.Operation`."""

    name: str
    done: bool


class MockOperation(Operation):
    """The handle on a run in this process.

    In the environments "local" and "test" `delay()` returns it finished. Your tests may create a running one, and
    end it with `set_result()` or `set_exception()`.
    """

    def __init__(self, job: str, run_id: str) -> None:
        self.run_id = run_id
        self._job = job
        self._started = datetime.now(UTC)
        self._ended: datetime | None = None
        self._future: Future[Any] = Future()  # Ends once, and calls the callbacks.
        self._requested_in = commits.open_blocks()

    def __repr__(self) -> str:
        return f"<MockOperation {self.execution_name} {'done' if self._future.done() else 'running'}>"

    @property
    def operation(self) -> MockLongRunningOperation:
        name = f"projects/local/locations/local/operations/{self.run_id}"
        return MockLongRunningOperation(name=name, done=self.done())

    @property
    def metadata(self) -> MockExecution:
        ended, cancelled = self.done(), self.cancelled()
        failed = ended and not cancelled and self._future.exception() is not None
        return MockExecution(
            name=self.execution_name,
            uid=self.run_id,
            job=self._job,
            create_time=self._started,
            start_time=self._started,
            completion_time=self._ended,
            running_count=int(not ended),
            succeeded_count=int(ended and not failed and not cancelled),
            failed_count=int(failed),
            cancelled_count=int(cancelled),
            reconciling=not ended,
        )

    @property
    def execution_name(self) -> str:
        job = f"projects/local/locations/local/jobs/{self._job}"
        return f"{job}/executions/{self._job}-{self.run_id[:5]}"

    def done(self, retry: Any = None) -> bool:
        return self._future.done()

    def result(self, timeout: float | None = None, retry: Any = None, polling: Any = None) -> Any:
        self._warn_in_transaction()
        return self._future.result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._warn_in_transaction()
        return self._future.exception(timeout)

    def cancel(self) -> bool:
        if self.done():
            return False
        self.set_exception(JobCancelled(f"{self.execution_name} was cancelled."))
        return True

    def cancelled(self) -> bool:
        return self.done() and isinstance(self._future.exception(), JobCancelled)

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        self._future.add_done_callback(lambda future: fn(self))

    def _warn_in_transaction(self) -> None:
        still_open = {id(block) for block in commits.open_blocks()}
        if any(id(block) in still_open for block in self._requested_in):
            message = (
                f"{self._job}: result() in the transaction that requested the run raises in the cloud, "
                "where the request is sent after the commit. Wait for the result after the `atomic` block."
            )
            warnings.warn(message, RuntimeWarning, stacklevel=3)

    def set_result(self, result: Any) -> None:
        """End the run with what `run()` returned. Raises `InvalidStateError` if it has ended."""
        self._ended = datetime.now(UTC)
        self._future.set_result(result)

    def set_exception(self, exception: BaseException) -> None:
        """End the run with an error. Raises `InvalidStateError` if it has ended."""
        self._ended = datetime.now(UTC)
        self._future.set_exception(exception)
