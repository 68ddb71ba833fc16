"""What is done around a job's `run()`: its record is claimed, its locks are taken, its end is told."""

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
from cloudrun_jobs.execution.attempt import Attempt, is_nested, record_attempt
from cloudrun_jobs.execution.claim import AlreadyClaimed, Invocation
from cloudrun_jobs.execution.outcome import NOT_STARTED, exit_code_of, storable
from cloudrun_jobs.execution.results import to_json_value
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.process.deferral import interruptible
from cloudrun_jobs.signals import execution_superseded, job_finished, job_skipped, job_started, run_record_failed
from cloudrun_jobs.spec import JobSpec

if TYPE_CHECKING:
    from cloudrun_jobs.command import CloudRunJobs

Tell = Callable[..., object]  # Sends a signal of the job that runs, with these values.

NOT_UNDERSTOOD = 2  # As argparse ends for arguments that it does not understand.


def run_job(job: CloudRunJobs, args: tuple[Any, ...], options: dict[str, Any], *, run_id: str = "") -> Any:
    """Run the job, and return its result in JSON form; None if it stepped aside.

    `run_id` is the run's, where this process has recorded a request for it.
    """
    spec = job.spec
    start = _start(job, spec, args, options, run_id)
    with (
        _as_command_error(job),
        _released(job) as released,
        interrupts.handle_signals(spec.timeout.total_seconds()) as interrupt,
        _signal_after_record(job, interrupt) as at_last,
        record_attempt(start, spec, interrupt) as attempt,
    ):
        released.append(attempt.run)
        job._run = attempt.run
        tell = partial(_tell, job, spec, attempt)
        tell_at_last = partial(at_last.callback, tell)
        if isinstance(attempt, AlreadyClaimed):
            return _step_aside(attempt, tell, is_request=bool(run_id))
        job._attempt, job._telling, job._verbosity = attempt, None, options.get("verbosity", 1)
        with locking.hold_locks(job, spec, {**options, "args": args}) as leases:
            if isinstance(leases, locking.LockSkipped):
                return _skip(attempt, leases, tell_at_last)
            job._leases = leases
            attempt.succeed(_work(job, partial(job.run, *args, **options), tell, tell_at_last))
        return attempt.result


@contextmanager
def _released(job: CloudRunJobs) -> Iterator[list[JobRun]]:
    """Delete what started the runs of the list in this container, if it was made for one of them alone."""
    runs: list[JobRun] = []
    try:
        yield runs
    finally:
        for run in runs:
            if run.is_reserved and environ.in_container():
                _release(job, run)


def _release(job: CloudRunJobs, run: JobRun) -> None:
    """Delete it if that can be done: who looks after the runs does it otherwise."""
    try:
        job.release(run)
    except (CloudRunJobsError, Error) as error:
        run_record_failed.send_robust(JobRun, run=run, error=error)


@contextmanager
def _signal_after_record(job: CloudRunJobs, interrupt: interrupts.Interrupt) -> Iterator[ExitStack]:
    """Give what is called once the record says how the run ended. `manage.py` ends with the status of that."""
    try:
        with ExitStack() as at_last:
            yield at_last
    finally:
        if job._called_from_command_line:  # type: ignore[attr-defined]  # set by BaseCommand
            interrupt.ignore_further_signals()


def _start(
    job: CloudRunJobs, spec: JobSpec, args: tuple[Any, ...], options: Mapping[str, Any], run_id: str
) -> Invocation:
    return Invocation(
        command=spec.command,
        environment=spec.environment,
        argv=None if run_id else _argv(job, args, options),
        # A job that another one calls is no part of the execution.
        task=None if run_id or is_nested() else environ.current_task(),
        run_id=run_id,
    )


def _argv(job: CloudRunJobs, args: tuple[Any, ...], options: Mapping[str, Any]) -> list[str] | None:
    """Return what follows `manage.py`, or would; None if it cannot be said in arguments, or kept."""
    if job._called_from_command_line:  # type: ignore[attr-defined]  # set by BaseCommand
        return sys.argv[1:] if all(storable(word) == word for word in sys.argv[1:]) else None
    from cloudrun_jobs.argv import serialise  # Of no use to a container.

    own = {name: value for name, value in options.items() if name not in locking.DJANGO_OPTIONS}
    try:
        return [job.command_name, *serialise(job._parser(), args, own)]
    except InvalidArguments:
        return None


def _step_aside(taken: AlreadyClaimed, tell: Tell, *, is_request: bool) -> None:
    """Leave the run to whom it belongs. Only who asked for it in this process expects a result."""
    tell(execution_superseded)
    if is_request:
        words = f"{taken.run}: {taken.run.get_status_display()} before it began."
        raise JobCancelled(words) if taken.run.status == Status.CANCELLED else JobFailed(words)


def _skip(attempt: Attempt, refusal: locking.LockSkipped, tell_at_last: Tell) -> None:
    """Leave the work to whom it is that holds the lock."""
    attempt.skip(refusal.lock, refusal.holders)
    tell_at_last(job_skipped, lock=refusal.lock, holders=refusal.holders)


@contextmanager
def _as_command_error(job: CloudRunJobs) -> Iterator[None]:
    """Where `manage.py` runs this, say in a line, and in the status, what kept the job from being done."""
    try:
        yield
    except (LockError, LeaseLost, RecordUnavailable, RecordTablesMissing, InvalidRunId) as error:
        if not job._called_from_command_line:  # type: ignore[attr-defined]  # set by BaseCommand
            raise
        status = NOT_UNDERSTOOD if isinstance(error, InvalidRunId) else NOT_STARTED
        raise CommandError(str(error), returncode=status) from error


def _work(job: CloudRunJobs, run: Callable[[], Any], tell: Tell, tell_at_last: Tell) -> Any:
    started = time.monotonic()
    error: BaseException | None = None
    tell(job_started)
    try:
        return to_json_value(job.command_name, interruptible(run))
    except BaseException as raised:
        error = _normalise_exit_code(raised)
        raise
    finally:
        _stop_telling(job)
        seconds = time.monotonic() - started
        tell_at_last(job_finished, seconds=seconds, error=error)


def _tell(
    job: CloudRunJobs, spec: JobSpec, attempt: Attempt | AlreadyClaimed, signal: Signal, **values: Any
) -> None:
    """Send a signal of the job with its run as that is by now."""
    job._run = attempt.run
    signal.send_robust(type(job), spec=spec, run=attempt.run, task=environ.current_task(), **values)


def _stop_telling(job: CloudRunJobs) -> None:
    """Tell the progress made last. What is told after this belongs to no run."""
    if job._telling is not None:
        job._telling.stop()
    job._telling = job._attempt = None


def _normalise_exit_code(error: BaseException) -> BaseException | None:
    """Give an error that would end the process with status 0 another; return None for a success."""
    if isinstance(error, SystemExit):
        if not exit_code_of(error.code):
            return None
        error.code = exit_code_of(error.code) if isinstance(error.code, int) else error.code
    if isinstance(error, CommandError):
        error.returncode = exit_code_of(error.returncode) or 1
    return error
