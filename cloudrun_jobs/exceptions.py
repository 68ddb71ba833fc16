"""The package's exceptions.

`LeaseLost` and `JobInterrupted` derive from `BaseException`: `except Exception` in a job must not keep it running.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from django.core.exceptions import ImproperlyConfigured

TERMINATED = 128 + 15  # The shell's exit status of a process that SIGTERM ended.


def sentence(message: str) -> str:
    """Return the message with a full stop, if it is to be followed by a sentence and has no end."""
    message = message.rstrip()
    return f"{message}." if message and not message.endswith((".", "!", "?", ":", "…")) else message


class _Hinted(BaseException):
    """An exception whose text is its message and its hint."""

    #: What to do, as a sentence; may be empty.
    hint: str

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return " ".join(filter(None, (sentence(message) if self.hint else message, self.hint)))


class CloudRunJobsError(_Hinted, Exception):
    """The base of this package's errors. The message names what was expected and what was found."""


class InvalidSettings(CloudRunJobsError, ImproperlyConfigured):
    """`settings.CLOUDRUN_JOBS`, or an environment variable that stands for one of its keys, is invalid."""


class InvalidSchedule(CloudRunJobsError):
    """Cloud Scheduler would reject the expression."""


class DeclarationError(NamedTuple):
    """One fault of a job's declaration."""

    attribute: str
    expected: str
    got: object
    hint: str = ""
    id: str = "cloudrun_jobs.E006"  # The system check that reports it.

    def __str__(self) -> str:
        return f"{self.attribute}: expected {self.expected}, got {_format(self.got)}."


class Verbatim(str):
    """Text that a `DeclarationError` shows as it is, in place of a value."""

    __slots__ = ()


def _format(got: object) -> str:
    if isinstance(got, Verbatim):
        return str(got)
    # A declaration in seconds has been normalised to a timedelta.
    return f"{got.total_seconds():.15g} seconds" if isinstance(got, timedelta) else repr(got)


class InvalidJob(CloudRunJobsError):
    """Cloud Run or Cloud Scheduler would reject the declaration of a job."""

    #: The name of the command.
    command: str
    #: All faults of the declaration.
    problems: tuple[DeclarationError, ...]

    def __init__(self, command: str, problems: Sequence[DeclarationError]) -> None:
        faults = (" ".join(filter(None, (str(problem), problem.hint))) for problem in problems)
        super().__init__(f"{command}: {' '.join(faults)}")
        self.command = command
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[type[InvalidJob], tuple[str, Sequence[DeclarationError]]]:
        return type(self), (self.command, self.problems)


class InvalidArguments(CloudRunJobsError):
    """The command would reject the arguments of `delay()`, or not receive them unchanged."""


class InvalidResult(CloudRunJobsError):
    """`run()` returned a value without a JSON form."""


class InvalidProgress(CloudRunJobsError, ValueError):
    """`progress()` got a value that is not a count."""


class InvalidItems(CloudRunJobsError, ValueError):
    """`shard()`, `claim()` or `item()` got invalid items or arguments, or was called where it cannot work."""


class ShardsDiffer(CloudRunJobsError):
    """The items of a task differ from those of the first task of the run: some would be in no share, or in two."""


class ServiceError(CloudRunJobsError):
    """A Google service rejected a request; no execution started."""


class AccessDenied(ServiceError):
    """The caller lacks a permission, or has no credentials."""


class JobNotDeployed(ServiceError):
    """Cloud Run has no job of this name in this project and region."""


class QuotaExhausted(ServiceError):
    """A quota of the project is exhausted."""


class ServiceUnavailable(ServiceError):
    """The service did not respond."""


class OutcomeUnknown(ServiceUnavailable):
    """The response was lost: the execution may have started."""


class InvalidRunId(CloudRunJobsError):
    """The run id in the container's variables is not a UUID, or one of another environment."""


class RecordUnavailable(CloudRunJobsError):
    """The database of the run records is unavailable."""


class RecordTablesMissing(CloudRunJobsError, ImproperlyConfigured):
    """The database of the run records is not migrated."""


class ResultUnavailable(CloudRunJobsError):
    """The execution succeeded, but its job did not record its result where this process reads it."""


class SecretError(CloudRunJobsError):
    """A secret cannot be read or updated. The message has no value of a secret."""


class SecretNotFound(SecretError):
    """The project has no secret, or no version of it, with this name."""


class SecretDisabled(SecretError):
    """The version of the secret is disabled or destroyed."""


class SecretAccessDenied(SecretError):
    """The account may not read or update the secret, or there are no credentials."""


class SecretCorrupted(SecretError):
    """The checksum of the value does not match."""


class SecretUnavailable(SecretError):
    """Secret Manager did not respond. If an update may have been written, the message says so."""


class SecretConflict(SecretError):
    """Another process updated the secret first; a version that this update added is disabled."""


class InvalidSecret(SecretError, ValueError):
    """A name, a value or an argument is invalid: the value is empty, too large or not text."""


class LockError(CloudRunJobsError):
    """A lock cannot be acquired, or is misused."""


class LockTimeout(LockError, TimeoutError):
    """The lock was held for as long as the caller would wait."""

    #: The name of the lock.
    lock: str
    #: The `Holder`s seen last.
    holders: tuple[object, ...]

    def __init__(self, message: str, *, lock: str = "", holders: Sequence[object] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.lock = lock
        self.holders = tuple(holders)


class LockUnavailable(LockError):
    """The lock server is unavailable; the lock was not acquired."""

    #: False in a broken transaction: a repetition fails too, and the rollback releases what it acquired.
    is_transient = True


class LockUnknown(LockUnavailable):
    """The response was lost: the caller may hold the lock until the lease ends."""


class LockTablesMissing(LockError, ImproperlyConfigured):
    """The database of the locks is not migrated."""


class LockMisused(LockError):
    """The caller does not hold the lock: it was released, or acquired in another thread or before a fork."""


class LeaseLost(_Hinted):
    """The lock is no longer held, and the work under it has not ended.

    Not an `Exception`, so it also ends a loop that catches those.
    """


class JobInterrupted(SystemExit):
    """SIGTERM arrived: Cloud Run ends the task, or a service manager ends the process.

    Raised in `run()`, which has eight seconds to clean up.
    """

    #: "timeout" if the attempt's `timeout` is over; else "interrupted", by a cancellation or a shutdown.
    reason: str

    def __init__(self, reason: str) -> None:
        super().__init__(TERMINATED)
        self.reason = reason

    def __str__(self) -> str:
        return f"The job was interrupted{' at its timeout' if self.reason == 'timeout' else ''}."


class IdempotencyKeyReused(InvalidArguments):
    """The idempotency key was used for a run with other arguments."""


class RerunRefused(CloudRunJobsError):
    """A run, or its failed tasks, cannot be rerun.

    The plain values of its secret options are not recorded, it has not ended, nothing failed, or another run
    repeats the failed tasks.
    """

    #: A stable identifier: "secrets", "unfinished", "not_started", "nothing_failed", "repeated" or "deleted".
    reason: str

    def __init__(self, message: str, *, hint: str = "", reason: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class JobFailed(CloudRunJobsError):
    """The execution ended, and not every task of it succeeded."""

    #: The exit status, where it is known.
    code: int | None

    def __init__(self, message: str, *, code: int | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class JobCancelled(JobFailed):
    """The execution was cancelled."""
