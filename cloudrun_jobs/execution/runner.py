"""Run one job: claim the record, hold the locks, record the outcome."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError
from django.db import Error
from django.dispatch import Signal

from cloudrun_jobs import environ
from cloudrun_jobs.exceptions import (
    CloudRunJobsError,
    InvalidArguments,
    InvalidRunId,
    JobCancelled,
    JobFailed,
    LeaseLost,
    LockError,
    RecordTablesMissing,
    RecordUnavailable,
)
from cloudrun_jobs.execution import interrupts, locking
from cloudrun_jobs.execution.active import ActiveRun, activated
from cloudrun_jobs.execution.attempt import Attempt, is_nested, record_attempt
from cloudrun_jobs.execution.claim import AlreadyClaimed, Invocation
from cloudrun_jobs.execution.outcome import NOT_STARTED, exit_code_of
from cloudrun_jobs.execution.results import to_json_value
from cloudrun_jobs.execution.termination import Termination
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.models.values import storable
from cloudrun_jobs.process.deferral import interruptible
from cloudrun_jobs.signals import (
    execution_superseded,
    job_finished,
    job_skipped,
    job_started,
    run_record_failed,
)
from cloudrun_jobs.spec import JobSpec

if TYPE_CHECKING:
    from cloudrun_jobs.spec.command import JobCommand

Send = Callable[..., object]  # Sends a signal about the job, with these values.

USAGE_ERROR = 2  # The exit status of argparse for arguments that it does not understand.


def run_job(job: JobCommand, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Run the job, and return its result in JSON form; None if the run was skipped."""
    spec = job.spec
    with (
        activated(job) as active,
        _as_command_error(job),
        _released() as released,
        interrupts.handle_signals(spec.timeout.total_seconds()) as termination,
        _signal_after_record(job, termination) as after_record,
        record_attempt(_invocation(job, spec, args, options, active.run), spec, termination) as attempt,
    ):
        is_request = active.run is not None
        released.append(attempt.run)
        active.run = attempt.run
        send = partial(_send, job, active, spec, attempt)
        send_after_record = partial(after_record.callback, send)
        if isinstance(attempt, AlreadyClaimed):
            return _step_aside(attempt, send, is_request=is_request)
        active.attempt, active.verbosity = attempt, options.get("verbosity", 1)
        with locking.hold_locks(job, spec, {**options, "args": args}) as leases:
            if isinstance(leases, locking.LockSkipped):
                return _skip(attempt, leases, send_after_record)
            active.leases = leases
            attempt.succeed(_work(job, active, partial(job.run, *args, **options), send, send_after_record))
        active.result = attempt.result
        return attempt.result


@contextmanager
def _released() -> Iterator[list[JobRun]]:
    """Delete the reservations of the runs in the list when the block ends: a container begins each run once."""
    runs: list[JobRun] = []
    try:
        yield runs
    finally:
        for run in runs:
            if run.is_reserved and environ.in_container():
                _release(run)


def _release(run: JobRun) -> None:
    """Delete the reservation of a run; if that fails, `reconcile` deletes it later."""
    from cloudrun_jobs import backends  # Most runs have no reservation, and do not pay for this.
    from cloudrun_jobs.runs import reservations

    try:
        reservations.release(backends.current(), run)
    except (CloudRunJobsError, Error) as error:
        run_record_failed.send_robust(JobRun, run=run, error=error)


@contextmanager
def _signal_after_record(job: JobCommand, termination: Termination) -> Iterator[ExitStack]:
    """Yield a stack of callbacks that run once the outcome is recorded. `manage.py` then exits with its status."""
    try:
        with ExitStack() as callbacks:
            yield callbacks
    finally:
        if _is_command_line(job):
            termination.ignore_further_signals()


def _invocation(
    job: JobCommand, spec: JobSpec, args: tuple[Any, ...], options: Mapping[str, Any], requested: JobRun | None
) -> Invocation:
    return Invocation(
        command=spec.command,
        environment=spec.environment,
        argv=None if requested else _argv(job, args, options),
        # A job that is called by another job is not part of the execution.
        task=None if requested or is_nested() else environ.current_task(),
        run_id=str(requested.pk) if requested else "",
    )


def _argv(job: JobCommand, args: tuple[Any, ...], options: Mapping[str, Any]) -> list[str] | None:
    """Return what follows `manage.py`, or would; None if arguments cannot express it, or cannot be stored."""
    if _is_command_line(job):
        return sys.argv[1:] if all(storable(word) == word for word in sys.argv[1:]) else None
    from cloudrun_jobs.argv import parser_of, serialise  # A container does not pay for these.
    from cloudrun_jobs.locks.policy import DJANGO_OPTIONS

    own = {name: value for name, value in options.items() if name not in DJANGO_OPTIONS}
    try:
        return [job.command_name, *serialise(parser_of(job), args, own)]
    except InvalidArguments:
        return None


def _is_command_line(job: JobCommand) -> bool:
    """Return True if `manage.py` runs this command, rather than `call_command()` or `delay()`."""
    return bool(getattr(job, "_called_from_command_line", False))


def _step_aside(claimed: AlreadyClaimed, send: Send, *, is_request: bool) -> None:
    """Leave the run to the execution that claimed it. A request of this process raises: it expects a result."""
    send(execution_superseded)
    if is_request:
        message = f"{claimed.run}: {claimed.run.get_status_display()} before it began."
        raise JobCancelled(message) if claimed.run.status == Status.CANCELLED else JobFailed(message)


def _skip(attempt: Attempt, skipped: locking.LockSkipped, send_after_record: Send) -> None:
    """Skip the run: another execution holds the lock."""
    attempt.skip(skipped.lock, skipped.holders)
    send_after_record(job_skipped, lock=skipped.lock, holders=skipped.holders)


@contextmanager
def _as_command_error(job: JobCommand) -> Iterator[None]:
    """On the command line, report in one line, and in the exit status, what kept the job from running."""
    try:
        yield
    except (LockError, LeaseLost, RecordUnavailable, RecordTablesMissing, InvalidRunId) as error:
        if not _is_command_line(job):
            raise
        status = USAGE_ERROR if isinstance(error, InvalidRunId) else NOT_STARTED
        raise CommandError(str(error), returncode=status) from error


def _work(job: JobCommand, active: ActiveRun, run: Callable[[], Any], send: Send, send_after_record: Send) -> Any:
    started = time.monotonic()
    error: BaseException | None = None
    send(job_started)
    try:
        return to_json_value(job.command_name, interruptible(run))
    except BaseException as raised:
        error = _normalise_exit_code(raised)
        raise
    finally:
        if active.progress is not None:
            active.progress.stop()
        active.progress = active.attempt = None  # Progress reported from now on belongs to no run.
        send_after_record(job_finished, seconds=time.monotonic() - started, error=error)


def _send(
    job: JobCommand,
    active: ActiveRun,
    spec: JobSpec,
    attempt: Attempt | AlreadyClaimed,
    signal: Signal,
    **values: Any,
) -> None:
    """Send a signal of the job with the run as it is by now."""
    active.run = attempt.run
    signal.send_robust(type(job), spec=spec, run=attempt.run, task=environ.current_task(), **values)


def _normalise_exit_code(error: BaseException) -> BaseException | None:
    """Ensure that a failing run exits non-zero; return None for a successful `SystemExit`."""
    if isinstance(error, SystemExit):
        if not exit_code_of(error.code):
            return None
        error.code = exit_code_of(error.code) if isinstance(error.code, int) else error.code
    if isinstance(error, CommandError):
        error.returncode = exit_code_of(error.returncode) or 1
    return error
