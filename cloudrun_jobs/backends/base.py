"""The interface of a backend: submit a run, and return its state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.core.checks import CheckMessage

from cloudrun_jobs.conf import Settings
from cloudrun_jobs.environ import ELEMENTS_VARIABLE, RUN_ID_VARIABLE
from cloudrun_jobs.exceptions import InvalidSettings, QuotaExhausted, ServiceUnavailable
from cloudrun_jobs.spec.overrides import NO_OVERRIDES, Overrides

if TYPE_CHECKING:  # A container that submits nothing need not import these.
    from cloudrun_jobs.models import JobRun
    from cloudrun_jobs.operations import ExecutionState, Operation
    from cloudrun_jobs.spec.reservation import Reservation

# Errors after which a retry may succeed. Any other error would occur again.
TRANSIENT_ERRORS = (ServiceUnavailable, QuotaExhausted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A validated request to run a job."""

    job: str  #: The name of the Cloud Run Job.
    argv: tuple[str, ...]  #: The arguments after `manage.py`: the command's name, then its own arguments.
    run_id: str
    overrides: Overrides = NO_OVERRIDES
    elements: int | None = None  #: The number of elements of `delay_many()`.
    extra_env: Mapping[str, str] = field(default_factory=dict)  #: Environment variables in addition to the run id.
    work: Callable[[], Any] | None = None  #: Runs the job in this process and returns its result in JSON form.

    @property
    def env(self) -> dict[str, str]:
        """The environment variables that the execution gets in addition to those of its job."""
        elements = {} if self.elements is None else {ELEMENTS_VARIABLE: str(self.elements)}
        return {**self.overrides.env, RUN_ID_VARIABLE: self.run_id, **elements, **self.extra_env}


class Backend(ABC):
    """A way to run jobs. `OPTIONS` of the settings arrive as keyword arguments; unknown ones are rejected."""

    # Does submit() run the job in the calling process, before it returns?
    runs_in_process = False

    # Can the backend start a run at a given time?
    supports_reserve = False

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

    @abstractmethod
    def operation(self, run: JobRun) -> Operation:
        """Return the handle on a run, submitted or not."""

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
            raise InvalidSettings(f"{type(self).__name__} cannot start a run at a given time.")

    def reserve(self, request: Request, reservation: Reservation, *, timeout: float) -> str:
        """Reserve the run for that time; return the key for `unreserve()`, or "" if the time has passed.

        Idempotent. Raises one of the `ServiceError`s.
        """
        raise NotImplementedError(f"{type(self).__name__} has no reserve().")

    def unreserve(self, key: str, *, timeout: float) -> None:
        """Delete the reservation with one request. Idempotent. Raises one of the `ServiceError`s."""
        raise NotImplementedError(f"{type(self).__name__} has no unreserve().")

    def check(self) -> Iterable[CheckMessage]:
        """Return system check messages about this backend's configuration."""
        return []
