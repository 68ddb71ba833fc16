"""The interface of a backend: submit a run, and return its state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.core.checks import CheckMessage

from cloudrun_jobs import conf
from cloudrun_jobs.conf import Settings
from cloudrun_jobs.environ import ELEMENTS_VARIABLE, RUN_ID_VARIABLE
from cloudrun_jobs.exceptions import (
    DeclarationError,
    InvalidArguments,
    InvalidSettings,
    QuotaExhausted,
    ServiceUnavailable,
)
from cloudrun_jobs.spec.overrides import NO_OVERRIDES, Overrides

if TYPE_CHECKING:  # A container that submits nothing need not import these.
    from cloudrun_jobs.backends.log_entries import LogEntry, LogQuery
    from cloudrun_jobs.models import JobRun
    from cloudrun_jobs.operations import ExecutionState, Operation
    from cloudrun_jobs.spec import JobSpec
    from cloudrun_jobs.spec.reservation import Reservation

# Errors after which a retry may succeed. Any other error would occur again.
TRANSIENT_ERRORS = (ServiceUnavailable, QuotaExhausted)

OTHER_BACKEND = "Choose another backend for the job, with `backend` or in CLOUDRUN_JOBS['ROUTES']."


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A validated request to run a job."""

    job: str  #: The name of the Cloud Run Job.
    argv: tuple[str, ...]  #: The arguments after `manage.py`: the command's name, then its own arguments.
    script: str = ""  #: Precedes `argv` in the container's arguments; "" if the entrypoint ends in `manage.py`.
    run_id: str
    overrides: Overrides = NO_OVERRIDES
    elements: int | None = None  #: The number of elements of `delay_many()`.
    queue: str = ""  #: The queue of a backend that has several.
    #: The number of tasks, and the timeout of an attempt in seconds; for a backend that tracks no executions.
    tasks: int = 1
    timeout: int | None = None
    indexes: tuple[int, ...] | None = None  #: The tasks to start, if not all of them.
    extra_env: Mapping[str, str] = field(default_factory=dict)  #: Environment variables in addition to the run id.
    work: Callable[[], Any] | None = None  #: Runs the job in this process and returns its result in JSON form.

    @property
    def container_args(self) -> tuple[str, ...]:
        """The arguments of the container."""
        return (self.script, *self.argv) if self.script else self.argv

    @property
    def env(self) -> dict[str, str]:
        """The environment variables that the execution gets in addition to those of its job."""
        elements = {} if self.elements is None else {ELEMENTS_VARIABLE: str(self.elements)}
        return {**self.overrides.env, RUN_ID_VARIABLE: self.run_id, **elements, **self.extra_env}


class Backend(ABC):
    """A way to run jobs. `OPTIONS` of the settings arrive as keyword arguments; unknown ones are rejected."""

    # Does submit() run the job in the calling process, before it returns?
    runs_in_process = False

    # Can the backend start a run at a given time? Otherwise, `reserve()` raises `InvalidSettings`.
    supports_reserve = False

    # Does the backend have terminate()? Otherwise, a cancelled run ends at its next `progress()`.
    supports_terminate = False

    # Can the backend run a job as several tasks? Otherwise, `delay()` of a job with `tasks`, or after
    # `using(tasks=...)`, and `delay_many()` raise `InvalidArguments` or `InvalidJob`.
    supports_tasks = False

    # Does the backend know whether an execution has ended? Otherwise, `reconcile` submits runs without a heartbeat
    # again, and its workers must ignore a task that is running or has ended: see `execution.delivery`.
    tracks_executions = True

    # Is the output of runs kept where read_log() finds it?
    keeps_logs = False

    # Does a request to the trigger of a job submit a run, instead of running the job in it?
    submits_triggers = False

    # Do settings replace the backend by the inline one?
    is_disabled = False

    # The declarations of jobs that have no effect on this backend.
    ignored_declarations: Collection[str] = ()

    # The alias in BACKENDS; "" for the default backend.
    alias = ""

    # For how many seconds is a request retried after transient errors?
    send_deadline = 20.0

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @abstractmethod
    def submit(self, run: JobRun, request: Request, *, timeout: float | None = None) -> Operation:
        """Start the run once and return its handle; give up after `timeout` seconds.

        Raises one of the `ServiceError`s. A backend that runs in process calls `request.work` and lets its errors
        propagate.
        """

    def operation(self, run: JobRun) -> Operation:
        """Return the handle on a run, submitted or not: by default, one that follows the record."""
        from cloudrun_jobs.backends.recorded import RecordOperation

        return RecordOperation(run, self)

    def terminate(self, run: JobRun, *, timeout: float) -> None:
        """Send SIGTERM to the processes that run it, if there are any. Raises one of the `ServiceError`s."""
        raise NotImplementedError(f"{type(self).__name__} has no terminate().")

    def problems(self, spec: JobSpec) -> Iterable[DeclarationError]:
        """Return the declarations of a job that would have another meaning on this backend."""
        if spec.tasks > 1 and not self.supports_tasks:
            expected = f"1, because {type(self).__name__} does not run several tasks"
            yield DeclarationError("tasks", expected, spec.tasks, OTHER_BACKEND, id="cloudrun_jobs.E032")

    def check_tasks(self, request: Request) -> None:
        """Raise `InvalidArguments` if the request is for several tasks, and the backend does not run them."""
        tasks = request.overrides.tasks or 1
        if self.supports_tasks or (request.elements is None and tasks == 1):
            return
        call = f"using(tasks={tasks})" if request.elements is None else "delay_many()"
        message = f"expected a backend that runs several tasks, got {type(self).__name__}."
        raise InvalidArguments(f"{request.argv[0]}: {call}: {message}", hint=OTHER_BACKEND)

    def queue_of(self, spec: JobSpec) -> str:
        """Return the queue of a job; "" for a backend without queues. Raises `InvalidSettings`."""
        return ""

    def count_waiting(self, queue: str) -> int | None:
        """Return the number of messages in a queue; None if it is unknown. Raises one of the `ServiceError`s."""
        return None

    def get_state(self, run: JobRun) -> ExecutionState:
        """Return the state of a run's execution. Raises one of the `ServiceError`s if it is unknown."""
        raise NotImplementedError(f"{type(self).__name__} has no get_state().")

    def find(self, request: Request, *, timeout: float) -> Operation | None:
        """Return the execution that carries the run's id, if there is one. Raises one of the `ServiceError`s.

        The execution must have `environ.REDUCE_VARIABLE` if the request has it, and must not have it otherwise.
        """
        return None

    def wait_for_quota(self) -> float:
        """Wait until this process may start another execution; return the seconds waited."""
        return 0.0

    def check_reserve(self) -> None:
        """Raise `InvalidSettings` if `reserve()` is not supported, or a setting that it needs is missing."""
        if not self.supports_reserve:
            message = f"expected a backend that starts runs at a given time, got {type(self).__name__}."
            raise InvalidSettings(f"reserve(): {message}", hint=OTHER_BACKEND)

    def reservation_at(self, time: datetime, spec: JobSpec, now: datetime) -> Reservation:
        """Return the first time, not before `time`, for which a run can be reserved. Raises `InvalidArguments`."""
        from cloudrun_jobs.spec.reservation import reservation_at

        return reservation_at(time, spec.time_zone, now)

    def reserve(self, request: Request, reservation: Reservation, *, timeout: float) -> str:
        """Reserve the run for that time; return the key for `unreserve()`, or "" if the time has passed.

        Idempotent. Raises one of the `ServiceError`s.
        """
        raise NotImplementedError(f"{type(self).__name__} has no reserve().")

    def unreserve(self, key: str, *, timeout: float) -> None:
        """Delete the reservation with one request. Idempotent. Raises one of the `ServiceError`s."""
        raise NotImplementedError(f"{type(self).__name__} has no unreserve().")

    def read_log(self, run: JobRun, query: LogQuery) -> Iterable[LogEntry]:
        """Return the log entries of a run, ordered by time. Raises one of the `ServiceError`s."""
        raise NotImplementedError(f"{type(self).__name__} has no read_log().")

    def check(self) -> Iterable[CheckMessage]:
        """Return system check messages about this backend's configuration."""
        return []

    def check_jobs(self, specs: Sequence[JobSpec]) -> Iterable[CheckMessage]:
        """Return system check messages about the jobs of this backend together."""
        return []

    def check_workers(self, specs: Sequence[JobSpec]) -> Iterable[CheckMessage]:
        """Return system check messages about the workers of these jobs. Raises one of the `ServiceError`s."""
        return []


def check_number(option: str, value: object) -> None:
    """Raise `InvalidSettings` if the option of a backend is not a number from 1 to 10000."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 10_000:
        where = conf.setting_name("OPTIONS", option)
        raise InvalidSettings(f"{where}: expected a number from 1 to 10000, got {value!r}.")
