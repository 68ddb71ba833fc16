"""What every backend can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.core.checks import CheckMessage

from cloudrun_jobs.conf import RUN_ID_VARIABLE, Settings
from cloudrun_jobs.exceptions import InvalidSettings

if TYPE_CHECKING:  # Of no use to a container that sends nothing.
    from cloudrun_jobs.models import JobRun
    from cloudrun_jobs.operations import ExecutionState, Operation
    from cloudrun_jobs.spec.reservation import Reservation


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request to run a job, checked and complete."""

    job: str  # The Cloud Run Job.
    argv: tuple[str, ...]  # What follows `manage.py`: the command's name, then its arguments.
    run_id: str
    told: Mapping[str, str] = field(default_factory=dict)  # What else the container is told, in variables.

    @property
    def environment(self) -> dict[str, str]:
        """The variables the execution gets beside those of its job."""
        return {RUN_ID_VARIABLE: self.run_id, **self.told}


class Backend(ABC):
    """A way to run jobs. `OPTIONS` of the settings arrive as keyword arguments; others are refused."""

    # Do runs go on in another process, which finds their record only once it is committed?
    is_remote = False

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @abstractmethod
    def operation(self, run: JobRun) -> Operation:
        """Return the handle on a run, whether it was sent yet or not."""

    def check_reserving(self) -> None:  # noqa: B027  (in this process, nothing is)
        """Raise `InvalidSettings` if something is missing that a reservation needs."""

    def check(self) -> Iterable[CheckMessage]:
        """Return system check messages about this backend's configuration."""
        return []


class InProcessBackend(Backend):
    """A way to run jobs in the process that asks for them."""

    @abstractmethod
    def perform(self, request: Request, work: Callable[[], Any]) -> Operation:
        """Call `work`, which runs the job and returns its result in JSON form, and return a finished handle."""


class RemoteBackend(Backend):
    """A way to run jobs elsewhere. It is told what to start, and asked what became of it."""

    is_remote = True

    # For how many seconds a request that got no clear answer is tried again.
    send_deadline = 20.0

    def wait_turn(self) -> float:
        """Return when this process may start another execution, after how many seconds."""
        return 0.0

    @abstractmethod
    def start(self, request: Request, *, timeout: float) -> Operation:
        """Start an execution, once, and return its handle. Raises one of the `ServiceError`s."""

    @abstractmethod
    def find(self, request: Request, *, timeout: float) -> Operation | None:
        """Return the execution that carries the run's id, if there is one. Raises one of the `ServiceError`s."""

    def check_reserving(self) -> None:
        """Raise `InvalidSettings` if something is missing that a reservation needs."""
        raise InvalidSettings(f"{type(self).__name__} cannot reserve runs for a time.")

    def reserve(self, request: Request, reservation: Reservation, *, timeout: float) -> str:
        """Have an execution started at that time; return what `unreserve()` wants, or nothing if it is past.

        May be repeated after a lost answer. Raises one of the `ServiceError`s.
        """
        raise NotImplementedError(f"{type(self).__name__} has no reserve().")

    def unreserve(self, entry: str) -> None:
        """Have it started no more. Raises one of the `ServiceError`s."""
        raise NotImplementedError(f"{type(self).__name__} has no unreserve().")

    @abstractmethod
    def get_state(self, run: JobRun) -> ExecutionState:
        """Ask what became of a run's execution. Raises one of the `ServiceError`s, which says nothing of it."""
