"""The outcome of an attempt, and the service's messages about it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from google.cloud import run_v2
from google.rpc import status_pb2

from cloudrun_jobs.emulator.errors import ServiceError


class Kind(enum.Enum):
    SUCCEEDED = "succeeded"
    EXITED = "exited"  # With a code other than 0, or by a signal that the emulator did not send.
    TIMED_OUT = "timed out"
    OUT_OF_MEMORY = "out of memory"
    CANCELLED = "cancelled"
    INFRASTRUCTURE = "infrastructure"  # The machine failed; restarting the task does not count as a retry.


EXITED_MESSAGE = "The container exited with an error."
TIMED_OUT_MESSAGE = "The configured timeout was reached."
OUT_OF_MEMORY_MESSAGE = "The configured memory limit was reached."

MESSAGES = {
    Kind.EXITED: EXITED_MESSAGE,
    Kind.TIMED_OUT: TIMED_OUT_MESSAGE,
    Kind.OUT_OF_MEMORY: OUT_OF_MEMORY_MESSAGE,
}
CODES = {Kind.EXITED: "ABORTED", Kind.TIMED_OUT: "DEADLINE_EXCEEDED", Kind.OUT_OF_MEMORY: "ABORTED"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one attempt. A negative code is the signal that ended it, as in `subprocess`."""

    kind: Kind
    code: int = 0

    @classmethod
    def of_exit(cls, code: int) -> Outcome:
        return cls(Kind.EXITED if code else Kind.SUCCEEDED, code)

    @property
    def exit_code(self) -> int:
        """The reported exit code: 0 unless the container itself exited with another."""
        return self.code if self.kind is Kind.EXITED and self.code > 0 else 0

    @property
    def term_signal(self) -> int:
        return -self.code if self.kind is Kind.EXITED and self.code < 0 else 0

    def result(self) -> run_v2.TaskAttemptResult:
        if self.kind is Kind.SUCCEEDED:
            return run_v2.TaskAttemptResult(status=status_pb2.Status())
        status = status_pb2.Status(code=self.number, message=self.message)
        result = run_v2.TaskAttemptResult(status=status)
        if self.term_signal:
            result.term_signal = self.term_signal
        else:
            result.exit_code = self.exit_code
        return result

    @property
    def message(self) -> str:
        return MESSAGES.get(self.kind, "Cancelled by user.")

    @property
    def number(self) -> int:
        return ServiceError(CODES.get(self.kind, "CANCELLED"), self.message).number

    def failure_message(self, task_id: str) -> str:
        """Return the message of the execution's condition and the operation's error."""
        return f"Task {task_id} failed with exit code: {self.exit_code} and message: {self.message}"

    def log_line(self) -> str | None:
        """Return the platform's log line for this outcome, or None."""
        if self.kind is Kind.EXITED and self.code > 0:
            return f"Container called exit({self.code})."
        if self.kind is Kind.EXITED:
            return f"Container terminated on signal {-self.code}."
        return "Container called exit(0)." if self.kind is Kind.SUCCEEDED else None
