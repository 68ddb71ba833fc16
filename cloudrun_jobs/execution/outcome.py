"""The outcome of an attempt, derived from what `run()` raised."""

from __future__ import annotations

import traceback
from typing import NamedTuple

from django.core.management.base import CommandError

from cloudrun_jobs.argv.redaction import mask
from cloudrun_jobs.exceptions import JobInterrupted, LeaseLost, LockError, RecordTablesMissing, RecordUnavailable
from cloudrun_jobs.models import Status
from cloudrun_jobs.models.values import storable

NOT_STARTED = 75  # EX_TEMPFAIL: the job could not start now; a retry may succeed.
MAX_MESSAGE = 10_000  # characters
MAX_TRACEBACK = 100_000  # characters


class Outcome(NamedTuple):
    """What is recorded of a finished attempt."""

    status: Status
    exit_code: int = 0
    reason: str = ""
    error_class: str = ""
    error_message: str = ""
    traceback: str = ""

    @property
    def error(self) -> dict[str, str]:
        """The fields that describe the error, by name."""
        names = ("error_class", "error_message", "traceback")
        return {name: getattr(self, name) for name in names}


def outcome_of(error: BaseException | None) -> Outcome:
    """Return the outcome of an attempt that raised this error, or none."""
    match error:
        case None:
            return Outcome(status=Status.SUCCEEDED)
        case JobInterrupted():
            return _with(error, Status.FAILED, error.reason, exit_code_of(error.code))
        case SystemExit():
            code = exit_code_of(error.code)
            return _with(error, Status.FAILED, "exit_code", code) if code else Outcome(status=Status.SUCCEEDED)
        case KeyboardInterrupt():
            return _with(error, Status.CANCELLED, "keyboard", 130)
        case LeaseLost():
            return _with(error, Status.FAILED, "lock_lost", NOT_STARTED)
        case LockError() | RecordUnavailable() | RecordTablesMissing():
            reason = "lock" if isinstance(error, LockError) else "error"
            return _with(error, Status.FAILED, reason, NOT_STARTED)
        case CommandError():
            return _with(error, Status.FAILED, "error", exit_code_of(error.returncode) or 1)
    return _with(error, Status.FAILED, "error", 1)


def exit_code_of(code: object) -> int:
    """Return the exit status of `sys.exit(code)`, with 1 for failures whose status would be 0.

    The operating system keeps one byte of it: after `sys.exit(256)`, Cloud Run would report a success.
    """
    if code is None:
        return 0
    return (code & 0xFF or int(code != 0)) if isinstance(code, int) else 1


def _with(error: BaseException, status: Status, reason: str, code: int) -> Outcome:
    return Outcome(
        status=status,
        exit_code=code,
        reason=reason,
        error_class=class_name_of(error),
        error_message=message_of(error),
        # The end of a long traceback says more than its start.
        traceback=storable(mask("".join(traceback.format_exception(error))))[-MAX_TRACEBACK:],
    )


def class_name_of(error: BaseException) -> str:
    return storable(mask(type(error).__name__))[:200]


def message_of(error: BaseException) -> str:
    """Return the error's message in a form that the database can store."""
    try:
        return storable(mask(str(error)))[:MAX_MESSAGE]
    except Exception as failed:  # noqa: BLE001  (an error's own __str__ may raise anything)
        return f"str() of it raised {type(failed).__name__}."
