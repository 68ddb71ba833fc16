"""What happens in the emulator, announced to listeners such as the terminal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudrun_jobs.emulator.engine.outcomes import Outcome
    from cloudrun_jobs.emulator.http_delivery import Result


@dataclass(frozen=True, slots=True)
class ExecutionStarted:
    name: str
    task_count: int


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    execution: str
    index: int
    number: int
    outcome: Outcome
    restarts: bool  # Another attempt follows.


@dataclass(frozen=True, slots=True)
class ExecutionEnded:
    name: str
    outcome: str  # succeeded, failed or cancelled.
    seconds: float
    tasks: dict[str, int]  # The number of tasks by outcome, and of those that were retried.
    message: str  # Of the condition Completed.


@dataclass(frozen=True, slots=True)
class Delivered:
    """Cloud Scheduler or Cloud Tasks made an attempt."""

    name: str  # Of the job, or of the task.
    verb: str
    url: str
    result: Result


@dataclass(frozen=True, slots=True)
class CallFailed:
    call: str  # Jobs.RunJob over gRPC, POST /v2/… over HTTP.
    code: str
    message: str


Event: TypeAlias = ExecutionStarted | AttemptEnded | ExecutionEnded | Delivered | CallFailed


@dataclass(slots=True)
class Events:
    _listeners: set[Callable[[Event], None]] = field(default_factory=set)

    def announce(self, event: Event) -> None:
        for listener in tuple(self._listeners):
            listener(event)

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call a function with every event from now on. It must not block: the engine may be locked."""
        self._listeners.add(listener)

    def unlisten(self, listener: Callable[[Event], None]) -> None:
        self._listeners.discard(listener)
