"""Run one job: claim the record, hold the locks, record the outcome."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from inspect import iscoroutine
from typing import TYPE_CHECKING, Any, NoReturn

from django.core.management.base import CommandError
from django.db import connections
from django.dispatch import Signal

from cloudrun_jobs import conf, environ, exceptions, signals
from cloudrun_jobs.argv.reading import reading_of
from cloudrun_jobs.argv.redaction import is_protecting
from cloudrun_jobs.execution import deadlines, interrupts, locking
from cloudrun_jobs.execution.active import ActiveRun, activated
from cloudrun_jobs.execution.attempt import Attempt
from cloudrun_jobs.execution.claim import AlreadyClaimed, Invocation
from cloudrun_jobs.execution.outcome import NOT_STARTED, exit_code_of
from cloudrun_jobs.execution.recording import is_nested, record_attempt
from cloudrun_jobs.execution.reduction import call_reduce
from cloudrun_jobs.execution.results import to_json_value
from cloudrun_jobs.execution.termination import Termination
from cloudrun_jobs.logs import context
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.models.statuses import ITEMS
from cloudrun_jobs.models.values import storable
from cloudrun_jobs.process.deferral import interruptible
from cloudrun_jobs.runs import database
from cloudrun_jobs.spec import JobSpec
from cloudrun_jobs.spec.overrides import Overrides
from cloudrun_jobs.terminal import escape

if TYPE_CHECKING:
    from cloudrun_jobs.spec.command import JobCommand

USAGE_ERROR = 2  # The exit status of argparse for invalid arguments.

# On the command line, these become a `CommandError`.
REASONS_NOT_TO_RUN = (
    exceptions.LockError,
    exceptions.LeaseLost,
    exceptions.RecordUnavailable,
    exceptions.RecordTablesMissing,
    exceptions.InvalidRunId,
)


def run_job(job: JobCommand, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Run the job, and return its result in JSON form; None if the run was skipped."""
    task = environ.current_task()
    if task and task.only_reduces and task.index:
        return None  # A surplus task: Cloud Run accepts no fewer tasks than `task_parallelism`.
    return _record_job(job, args, options)


def _record_job(job: JobCommand, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    spec = job.spec
    with (
        activated(job) as active,
        _secrets_protected(job, active, args, options),
        _as_command_error(job),
        ExitStack() as cleanup,
        interrupts.handle_signals(spec.timeout.total_seconds()) as termination,
        _signal_after_record(job, termination) as after_record,
        record_attempt(
            _start(job, active.trigger or _invocation(job, spec, args, options, active)), spec, termination
        ) as attempt,
    ):

        def send(signal: Signal, **values: Any) -> None:
            active.run = attempt.run  # The attempt may have replaced it.
            signal.send_robust(type(job), spec=spec, run=attempt.run, task=environ.current_task(), **values)

        cleanup.callback(_release_reservation, attempt.run)
        cleanup.enter_context(context.activated(spec.name, str(attempt.run.pk)))
        is_request, active.run = active.run is not None, attempt.run
        if isinstance(attempt, AlreadyClaimed):
            send(signals.execution_superseded)
            return _fail_request(attempt.run) if is_request else None
        after_record.callback(_raise_failed_items, job, attempt)
        attempt.ends_process = _is_command_line(job)
        if attempt.run.cancel_requested_at:
            attempt.cancel()
            after_record.callback(send, signals.execution_superseded)
            return _fail_request(attempt.run) if is_request else None
        active.attempt, active.termination = attempt, termination
        if (timeout := Overrides.decode(attempt.run.overrides).timeout) is not None:
            termination.extend(timeout - spec.timeout)
        active.verbosity = options.get("verbosity", 1)
        with locking.hold_locks(job, spec, {**options, "args": args}, attempt) as leases:
            if isinstance(leases, locking.LockSkipped):
                attempt.skip(leases.message)
                _reduce_if_last(job, attempt)
                after_record.callback(send, signals.job_skipped, lock=leases.lock, holders=leases.holders)
                return None
            active.leases = leases
            if hasattr(job, "test_mode"):
                job.test_mode = job.test_mode or conf.is_test_mode()
            send(signals.job_started)

            def send_finished(error: BaseException | None, **values: Any) -> None:
                propagates = not active.trigger and _propagates(job, error, options, is_request=is_request)
                values |= {"error": error, "propagates": propagates, "result": attempt.value}
                after_record.callback(send, signals.job_finished, **values)

            _work(job, active, attempt, partial(_run, job, active, attempt, args, options), send_finished)
        active.result = attempt.value
        return attempt.value


def _secrets_protected(
    job: JobCommand, active: ActiveRun, args: tuple[Any, ...], options: Mapping[str, Any]
) -> AbstractContextManager[None]:
    """Return a context manager that masks the values of secret options, if the job has any."""
    if not job.spec.secret_options:
        return nullcontext()
    from cloudrun_jobs.execution import secret_options  # Most jobs have none, and need not import it.

    return secret_options.protected(job, active, args, options, ends_process=_is_command_line(job))


def _raise_failed_items(job: JobCommand, attempt: Attempt) -> None:
    """Raise an error if items have failed, because `run()` raised none. In an execution, the record suffices."""
    run = attempt.run
    if run.reason == ITEMS and run.status == Status.FAILED and not run.execution:
        message = f"{run}: {run.error_message}"
        raise CommandError(escape(message)) if _is_command_line(job) else exceptions.JobFailed(message)


def _release_reservation(run: JobRun) -> None:
    """Delete the reservation of a run that a container has run; if that fails, `reconcile` deletes it later.

    In a thread: neither credentials nor a database without an answer may keep a container whose work is recorded.
    """
    if not (run.is_reserved and environ.in_container()) or database.in_transaction():
        return
    thread = threading.Thread(target=_try_unreserve, args=(run,), name="cloudrun_jobs-reservation", daemon=True)
    thread.start()
    thread.join(deadlines.UNRESERVE_LIMIT_SECONDS)
    if thread.is_alive():
        error = TimeoutError(f"its reservation was not deleted within {deadlines.UNRESERVE_LIMIT_SECONDS:g} s")
        signals.run_record_failed.send_robust(JobRun, run=run, error=error)


def _try_unreserve(run: JobRun) -> None:
    from cloudrun_jobs import backends  # Most runs have no reservation and need not import these.
    from cloudrun_jobs.runs import reservations

    try:
        reservations.release(backends.for_run(run), run)
    except Exception as error:  # noqa: BLE001  (whatever it is, the outcome is recorded)
        signals.run_record_failed.send_robust(JobRun, run=run, error=error)
    finally:
        connections.close_all()  # This thread's.


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
    job: JobCommand, spec: JobSpec, args: tuple[Any, ...], options: Mapping[str, Any], active: ActiveRun
) -> Invocation:
    requested = active.run
    return Invocation(
        command=spec.command,
        environment=spec.environment,
        argv=None if requested else _argv(job, args, options),
        # A job that is called by another job is not part of the execution.
        task=active.task if requested or is_nested() else environ.current_task(),
        run_id=str(requested.pk) if requested else "",
        script=spec.script,
    )


def _start(job: JobCommand, invocation: Invocation) -> Invocation:
    """Return the invocation with `reduces` and `reduces_partial` of the job."""
    reduces = callable(getattr(type(job), "reduce", None))
    return invocation._replace(reduces=reduces, reduces_partial=reduces and job.reduce_partial)


def _argv(job: JobCommand, args: tuple[Any, ...], options: Mapping[str, Any]) -> list[str] | None:
    """Return the arguments after `manage.py`, without plain values of secret options.

    None if arguments cannot express the call or cannot be stored.
    """
    if _is_command_line(job):
        given = sys.argv[1:]
        if not all(storable(argument) == argument for argument in given):
            return None
        return reading_of(job).redact(given)
    from cloudrun_jobs.argv import parser_of, serialise  # A container need not import these.
    from cloudrun_jobs.execution import secret_options
    from cloudrun_jobs.locks.policy import DJANGO_OPTIONS

    own = {name: value for name, value in options.items() if name not in DJANGO_OPTIONS}
    args, own = secret_options.without_values(job, args, own)
    try:
        return secret_options.redacted([job.command_name, *serialise(parser_of(job), args, own)])
    except exceptions.InvalidArguments:
        return None


def _is_command_line(job: JobCommand) -> bool:
    """Return True if `manage.py` runs this command, rather than `call_command()` or `delay()`."""
    return bool(getattr(job, "_called_from_command_line", False))


def _fail_request(run: JobRun) -> NoReturn:
    """Raise for a request of this process whose run cannot start: its caller expects a result."""
    if run.cancel_requested_at or run.status == Status.CANCELLED:
        raise exceptions.JobCancelled(f"{run}: cancelled before it started.")
    raise exceptions.JobFailed(f"{run}: {run.status} before it started.")


@contextmanager
def _as_command_error(job: JobCommand) -> Iterator[None]:
    """On the command line, report in one line, and in the exit status, why the job could not run."""
    try:
        yield
    except REASONS_NOT_TO_RUN as error:
        if not _is_command_line(job):
            raise
        status = USAGE_ERROR if isinstance(error, exceptions.InvalidRunId) else NOT_STARTED
        raise CommandError(escape(str(error)), returncode=status) from error
    except (CommandError, SystemExit) as error:
        # Django or Python prints the text, and each line would be a log entry.
        if environ.in_container() and _is_command_line(job):
            if isinstance(error, CommandError):
                error.args = (escape(str(error)),)
            elif isinstance(error.code, str):
                error.code = escape(error.code)
        raise


def _work(
    job: JobCommand,
    active: ActiveRun,
    attempt: Attempt,
    run: Callable[[], Any],
    send_finished: Callable[..., object],
) -> None:
    started = time.monotonic()
    error: BaseException | None = None
    try:
        if not attempt.only_reduces:
            _call_run(job, attempt, run)
        _reduce_if_last(job, attempt)
    except BaseException as raised:
        if is_protecting():
            from cloudrun_jobs.execution import secret_options

            secret_options.mask_error(raised)
        error = _normalise_exit_code(raised)
        raise
    finally:
        if active.claims is not None:
            active.claims.close(error)
        if active.progress is not None:
            active.progress.stop()
        active.progress = active.attempt = None  # Progress reported from now on belongs to no run.
        if (output := sys.modules.get("cloudrun_jobs.logs.output")) is not None:
            output.finish(job)
        send_finished(error, seconds=time.monotonic() - started)


def _call_run(job: JobCommand, attempt: Attempt, run: Callable[[], Any]) -> None:
    if attempt.has_no_work():
        attempt.succeed(None)
        return
    try:
        attempt.succeed(to_json_value(job.command_name, interruptible(run)))
    except BaseException as raised:
        _reduce_if_last(job, attempt, _normalise_exit_code(raised))
        raise


def _reduce_if_last(job: JobCommand, attempt: Attempt, error: BaseException | None = None) -> None:
    """Call `reduce()` if the job has it and this task is the last one of the run; `error` ended its work."""
    if attempt.begin_reduction(error):
        attempt.reduce(call_reduce(job, attempt))


def _run(
    job: JobCommand, active: ActiveRun, attempt: Attempt, args: tuple[Any, ...], options: Mapping[str, Any]
) -> Any:
    job._active.raise_if_interrupted()  # During the wait for its locks.
    with conf.reading_anew(), environ.variables_set(attempt.share_variables):
        if job.spec.secret_options:
            from cloudrun_jobs.execution import secret_options

            args, options = secret_options.resolve(job, active, args, options)
        result = job.run(*args, **options)
        if not iscoroutine(result):
            return result
        from cloudrun_jobs.execution.coroutines import run_coroutine  # Most jobs are synchronous.

        return run_coroutine(result)


def _propagates(
    job: JobCommand, error: BaseException | None, options: Mapping[str, Any], *, is_request: bool
) -> bool:
    """Return True if the error, or one raised from it, reaches the caller or leaves the process uncaught."""
    if isinstance(error, SystemExit):  # delay() raises JobFailed.
        return is_request and not isinstance(error, exceptions.JobInterrupted)
    if isinstance(error, (CommandError, *REASONS_NOT_TO_RUN)):  # Django prints its text, and exits.
        return not _is_command_line(job) or bool(options.get("traceback"))
    return error is not None


def _normalise_exit_code(error: BaseException) -> BaseException | None:
    """Ensure that a failing run exits non-zero; return None for a successful `SystemExit`."""
    if isinstance(error, SystemExit):
        if not exit_code_of(error.code):
            return None
        error.code = exit_code_of(error.code) if isinstance(error.code, int) else error.code
    if isinstance(error, CommandError):
        error.returncode = exit_code_of(error.returncode) or 1
    return error
