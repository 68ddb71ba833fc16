"""Everything that can go wrong, as one tree of errors.

CloudRunJobsError
├── InvalidSettings          settings.CLOUDRUN_JOBS cannot be used as it is
├── InvalidSchedule          Cloud Scheduler would refuse this expression
├── InvalidJob               Cloud Run would refuse this declaration
├── InvalidArguments         what delay() was given cannot reach run()
├── InvalidResult            what run() returned cannot be said in JSON
├── InvalidProgress          what progress() was given is no count
├── ServiceError             a Google service did not do what was asked
│   ├── AccessDenied         ... for want of a permission, or of credentials
│   ├── JobNotDeployed       ... because Cloud Run has no such job
│   ├── QuotaExhausted       ... because a quota ran out
│   └── ServiceUnavailable   ... or did not answer
│       └── OutcomeUnknown   ... and may have started what it was asked to
├── InvalidRunId             a container was told to do a run whose id is none
├── RecordUnavailable        the database that keeps the records of the runs does not answer
├── RecordTablesMissing      ... or was not migrated
├── LockError                a lock cannot be had, or is not used as it should be
│   ├── LockTimeout          ... others held it for as long as the caller would wait
│   ├── LockUnavailable      ... its server did not say who holds it
│   │   └── LockUnknown      ... nor whether this caller does now: an answer was lost
│   ├── LockTablesMissing    ... its database was not migrated
│   └── LockMisused          ... it is not this caller's to use
└── JobFailed                the execution ended, and not every task succeeded
    └── JobCancelled         ... because somebody cancelled it

LeaseLost and JobInterrupted stand apart, under BaseException: work must not go on because somewhere stands
`except Exception`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from django.core.exceptions import ImproperlyConfigured

TERMINATED = 128 + 15  # What a shell reports of a process that SIGTERM ended.


class CloudRunJobsError(Exception):
    """The base of this package's errors: what was expected, what came, and in `hint` what to do."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        return " ".join(filter(None, (super().__str__(), self.hint)))


class InvalidSettings(CloudRunJobsError, ImproperlyConfigured):
    """`settings.CLOUDRUN_JOBS`, or a variable that stands for one of its keys, cannot be used."""


class InvalidSchedule(CloudRunJobsError):
    """Cloud Scheduler would refuse this expression."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclarationError:
    """One fault of a job's declaration."""

    attribute: str
    expected: str
    got: object
    hint: str = ""
    id: str = "cloudrun_jobs.E006"  # The system check that reports it.

    def __str__(self) -> str:
        return f"{self.attribute}: expected {self.expected}, got {_shown(self.got)}."


class Verbatim(str):
    """Stands in a `Problem` for a value that is not shown, or better told in words."""

    __slots__ = ()


def _shown(got: object) -> str:
    if isinstance(got, Verbatim):
        return str(got)
    # A declaration of seconds has become one of these, and is told as the other.
    return f"{got.total_seconds():.15g} seconds" if isinstance(got, timedelta) else repr(got)


class InvalidJob(CloudRunJobsError):
    """A declaration that Cloud Run or Cloud Scheduler would refuse, with all its faults."""

    def __init__(self, command: str, problems: Sequence[DeclarationError]) -> None:
        faults = (" ".join(filter(None, (str(problem), problem.hint))) for problem in problems)
        super().__init__(f"{command}: {' '.join(faults)}")
        self.command = command
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[type[InvalidJob], tuple[str, Sequence[DeclarationError]]]:
        return type(self), (self.command, self.problems)


class InvalidArguments(CloudRunJobsError):
    """What `delay()` was given cannot reach `run()` unchanged, or the command would refuse it."""


class InvalidResult(CloudRunJobsError):
    """`run()` returned a value that JSON cannot say."""


class InvalidProgress(CloudRunJobsError, ValueError):
    """What `progress()` was given is no count."""


class ServiceError(CloudRunJobsError):
    """A Google service did not do what was asked; nothing was started."""


class AccessDenied(ServiceError):
    """The caller lacks a permission, or has no credentials."""


class JobNotDeployed(ServiceError):
    """Cloud Run has no job of this name in this project and region."""


class QuotaExhausted(ServiceError):
    """A quota of the project ran out."""


class ServiceUnavailable(ServiceError):
    """The service did not answer."""


class OutcomeUnknown(ServiceUnavailable):
    """No answer came: the execution may have been started all the same."""


class InvalidRunId(CloudRunJobsError):
    """The container was told to do a run, by an id that is none."""


class RecordUnavailable(CloudRunJobsError):
    """The database that keeps the records of the runs does not answer."""


class RecordTablesMissing(CloudRunJobsError, ImproperlyConfigured):
    """The database that keeps the records of the runs was not migrated."""


class LockError(CloudRunJobsError):
    """A lock cannot be had, or is not used as it should be."""


class LockTimeout(LockError, TimeoutError):
    """Others held the lock for as long as the caller would wait.

    `lock` is its name; `holders` are the `Holder`s seen last.
    """

    def __init__(self, message: str, *, lock: str = "", holders: Sequence[object] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.lock = lock
        self.holders = tuple(holders)


class LockUnavailable(LockError):
    """The server that keeps the locks did not say who holds this one; nothing was taken."""


class LockUnknown(LockUnavailable):
    """An answer was lost: the lock may be this caller's, and then nobody else's until its lease ends."""


class LockTablesMissing(LockError, ImproperlyConfigured):
    """The database that keeps the locks was not migrated."""


class LockMisused(LockError):
    """The lock is not this caller's: released already, taken in another thread, or before a fork."""


class LeaseLost(BaseException):
    """The lock is no longer held, though the work under it has not ended.

    Not an `Exception`, so that a loop which catches these ends all the same.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        return " ".join(filter(None, (super().__str__(), self.hint)))


class JobInterrupted(SystemExit):
    """SIGTERM came: Cloud Run ends the task, because it was cancelled or its `timeout` is over.

    Raised in `run()`, which has eight seconds to clean up. `reason` is "timeout" or "cancelled".
    """

    def __init__(self, reason: str) -> None:
        super().__init__(TERMINATED)
        self.reason = reason

    def __str__(self) -> str:
        return f"Interrupted by SIGTERM: {self.reason}."


class JobFailed(CloudRunJobsError):
    """The execution ended, and not every task of it succeeded.

    `code` is the exit status where one is known.
    """

    def __init__(self, message: str, *, code: int | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class JobCancelled(JobFailed):
    """Somebody cancelled the execution."""
