"""Log the signals of the package, in receivers: no other module of the package logs.

The logger is `cloudrun_jobs`. `record.action` is the signal's name. A job's arguments are not logged: they may be
personal data.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from django.core.management.base import CommandError
from django.dispatch import receiver

from cloudrun_jobs import signals
from cloudrun_jobs.environ import CloudRunTask, in_cloud
from cloudrun_jobs.exceptions import CloudRunJobsError, LeaseLost
from cloudrun_jobs.models import Progress
from cloudrun_jobs.spec import JobSpec
from cloudrun_jobs.spec.tick import REPEAT_TICK_HINT
from cloudrun_jobs.terminal import escape

if TYPE_CHECKING:
    from cloudrun_jobs.locks import Holder, Lease
    from cloudrun_jobs.models import JobRun
    from cloudrun_jobs.operations import Operation

UID = "cloudrun_jobs.logs"
Task: TypeAlias = CloudRunTask | None
MAX_ITEM_LENGTH = 200  # characters

MAX_RESULT_LENGTH = 32 * 1024  # characters, in JSON form


class OwnLogger:
    """The logger `cloudrun_jobs`. On Cloud Run, it writes entries itself if no handler is configured."""

    def __init__(self, name: str) -> None:
        self.logger = logging.getLogger(name)

    def info(self, message: str, *args: object, **values: Any) -> None:
        self._log(logging.INFO, message, args, values)

    def warning(self, message: str, *args: object, **values: Any) -> None:
        self._log(logging.WARNING, message, args, values)

    def error(self, message: str, *args: object, **values: Any) -> None:
        self._log(logging.ERROR, message, args, values)

    def log(self, level: int, message: str, *args: object, **values: Any) -> None:
        self._log(level, message, args, values)

    def writes(self, level: int) -> bool:
        """Return True if a record of the level is written as an entry, because no handler is configured."""
        return level >= (self.logger.level or logging.INFO) and in_cloud() and not self.logger.hasHandlers()

    def write(
        self, level: int, message: str, args: tuple[object, ...], *, extra: Any, exc_info: Any = None
    ) -> None:
        """Write an entry, even if handlers are configured."""
        from cloudrun_jobs.logs import entries, output  # Not needed if handlers are configured.

        trace = (type(exc_info), exc_info, exc_info.__traceback__) if exc_info is not None else None
        caller = sys._getframe(3).f_code
        values = (self.logger.name, level, caller.co_filename, sys._getframe(3).f_lineno, message, args, trace)
        record = self.logger.makeRecord(*values, func=caller.co_name, extra=extra)
        _escape(record)
        output.write_line(sys.stdout, entries.encode_record(record))

    def _log(self, level: int, message: str, args: tuple[object, ...], values: Any) -> None:
        if self.writes(level):
            self.write(level, message, args, **values)
        else:
            self.logger.log(level, message, *args, stacklevel=3, **values)


logger = OwnLogger("cloudrun_jobs")


def escape_arguments(record: logging.LogRecord) -> bool:
    """Escape the values in a message: text from users and services could otherwise forge an entry.

    If no handler is configured, this filter also writes the records of the package's other modules as entries.
    """
    _escape(record)
    if not logger.writes(record.levelno):
        return True
    from cloudrun_jobs.logs import entries, output

    output.write_line(sys.stdout, entries.encode_record(record))
    return False


def _escape(record: logging.LogRecord) -> None:
    if isinstance(record.args, tuple):
        record.args = tuple(arg if isinstance(arg, int | float) else escape(str(arg)) for arg in record.args)


logger.logger.addFilter(escape_arguments)


@receiver(signals.job_delayed, dispatch_uid=UID)
def log_job_delayed(sender: type, spec: JobSpec, run: JobRun, operation: Operation, **kwargs: Any) -> None:
    extra = {"action": "job_delayed", "job": spec.name, "run_id": str(run.pk)}
    if run.execution_name:
        logger.info("Job %s was dispatched as %s", spec.name, operation.execution_name, extra=extra)
    elif run.status == "pending" and run.scheduled_for:
        logger.info("Job %s is reserved for %s", spec.name, run.scheduled_for.isoformat(), extra=extra)
    elif not run.is_finished:
        logger.info("Job %s is dispatched when the transaction commits", spec.name, extra=extra)
    else:
        logger.info("Job %s ran in this process", spec.name, extra=extra)


@receiver(signals.job_started, dispatch_uid=UID)
def log_job_started(sender: type, spec: JobSpec, task: Task, **kwargs: Any) -> None:
    logger.info("Job %s started%s", spec.name, _attempt(task), extra=_extra("job_started", spec, task))


@receiver(signals.job_progressed, dispatch_uid=UID)
def log_job_progressed(
    sender: type, spec: JobSpec, run: JobRun, task: Task, done: int, total: int | None, text: str, **kwargs: Any
) -> None:
    progress = {"run_id": str(run.pk), "done": done, "total": total, "text": text}
    extra = _extra("job_progressed", spec, task) | progress
    message = escape(f"Job {spec.name} is at {Progress(done, total, text)}{_attempt(task)}")
    if in_cloud() and not logger.logger.isEnabledFor(logging.INFO):
        # The project's logging drops INFO, but a container's log should still show the progress.
        logger.write(logging.INFO, "%s", (message,), extra=extra)
    else:
        logger.info("%s", message, extra=extra)


@receiver(signals.job_finished, dispatch_uid=UID)
def log_job_finished(
    sender: type,
    spec: JobSpec,
    run: JobRun,
    task: Task,
    seconds: float,
    error: BaseException | None,
    propagates: bool = False,
    result: Any = None,
    **kwargs: Any,
) -> None:
    extra = _extra("job_finished", spec, task) | {"seconds": round(seconds, 3)}
    if result is not None:
        extra["result"] = _bounded(result)
    if error is None and run.status == "failed":  # This was its last task.
        message = "Job %s finished in %.1fs, and its run failed (%s): %s"
        logger.error(message, spec.name, seconds, run.reason, run.error_message, extra=extra)
    elif error is None:
        logger.info("Job %s finished in %.1fs%s", spec.name, seconds, _attempt(task), extra=extra)
    else:
        extra["error"] = name = type(error).__name__
        # An error tracker such as Sentry would report this failure twice; `lease_lost` has been logged.
        is_reported = propagates or isinstance(error, LeaseLost) or run.status == "cancelled"
        # Each deployment of a queue's workers interrupts attempts, which other workers repeat.
        is_reported |= task is not None and task.in_worker and getattr(error, "reason", "") == "interrupted"
        level, message = logging.WARNING if is_reported else logging.ERROR, "Job %s failed after %.1fs with %s%s"
        # Django prints the text of a CommandError; the errors of this package need no traceback.
        is_explained = propagates or isinstance(error, (CommandError, SystemExit, CloudRunJobsError))
        if level == logging.ERROR and not propagates and in_cloud():  # Error Reporting groups errors by traceback.
            from cloudrun_jobs.logs import output

            is_explained = False
            output.mark_reported(error)
        exc_info = None if is_explained else error
        logger.log(level, message, spec.name, seconds, name, _attempt(task), exc_info=exc_info, extra=extra)


@receiver(signals.job_waiting, dispatch_uid=UID)
def log_job_waiting(sender: type, spec: JobSpec, lock: str, holders: Sequence[Holder], **kwargs: Any) -> None:
    extra = _extra("job_waiting", spec, None) | {"lock": lock}
    logger.warning("Job %s waits for the lock %s, held by %s", spec.name, lock, _names(holders), extra=extra)


@receiver(signals.job_skipped, dispatch_uid=UID)
def log_job_skipped(
    sender: type, spec: JobSpec, task: Task, lock: str, holders: Sequence[Holder], **kwargs: Any
) -> None:
    extra = _extra("job_skipped", spec, task) | {"lock": lock}
    held = f"is held by {_names(holders)}" if holders else "was held when another task of the execution started"
    logger.warning("Job %s was skipped: the lock %s %s", spec.name, lock, held, extra=extra)


@receiver(signals.item_failed, dispatch_uid=UID)
def log_item_failed(
    sender: type,
    spec: JobSpec,
    task: Task,
    item: Any,
    error: Exception,
    tries: int,
    max_tries: int,
    is_final: bool,
    **kwargs: Any,
) -> None:
    name, kind = escape(f"{item}"[:MAX_ITEM_LENGTH]), type(error).__name__
    extra = _extra("item_failed", spec, task) | {"item": name, "error": kind, "tries": tries, "is_final": is_final}
    values = (spec.name, name, kind, tries, max_tries)
    logger.warning("Job %s: item %s failed with %s (try %d of %d)", *values, exc_info=error, extra=extra)


@receiver(signals.items_lost, dispatch_uid=UID)
def log_items_lost(sender: type, spec: JobSpec, task: Task, first: int, last: int, **kwargs: Any) -> None:
    message = "Job %s lost the lease of items %d to %d: another task has taken them over%s"
    extra = _extra("items_lost", spec, task) | {"first": first, "last": last}
    logger.warning(message, spec.name, first, last, _attempt(task), extra=extra)


@receiver(signals.execution_superseded, dispatch_uid=UID)
def log_execution_superseded(sender: type, spec: JobSpec, run: JobRun, task: Task, **kwargs: Any) -> None:
    by = f" in execution {run.execution}" if run.execution else ""
    extra = _extra("execution_superseded", spec, task)
    if run.status == "cancelled" or (run.cancel_requested_at and not run.is_finished):
        logger.warning("Job %s does no work: its run %s is cancelled", spec.name, run.pk, extra=extra)
        return
    if task and task.schedule and run.scheduled_for and run.execution != task.execution:
        tick = f"{run.scheduled_for:%F %T %Z}"
        message = "Job %s is skipped: its tick of %s is the run %s, which is %s%s. " + REPEAT_TICK_HINT
        logger.warning(message, spec.name, tick, run.pk, run.status, by, spec.name, extra=extra)
        return
    logger.warning("Job %s is superseded: its run %s is %s%s", spec.name, run.pk, run.status, by, extra=extra)


@receiver(signals.dispatch_postponed, dispatch_uid=UID)
def log_dispatch_postponed(sender: type, run: JobRun, error: Exception, **kwargs: Any) -> None:
    message = "Run %s is not dispatched yet: %s `manage.py cloudrun_jobs reconcile` dispatches it."
    logger.warning(message, run, error, extra=_run_extra("dispatch_postponed", run))


@receiver(signals.dispatch_failed, dispatch_uid=UID)
def log_dispatch_failed(
    sender: type, run: JobRun, error: Exception, propagates: bool = False, **kwargs: Any
) -> None:
    level, extra = logging.WARNING if propagates else logging.ERROR, _run_extra("dispatch_failed", run)
    logger.log(level, "Run %s cannot be dispatched: %s", run, error, extra=extra)


@receiver(signals.run_action, dispatch_uid=UID)
def log_run_action(sender: type, run: JobRun, action: str, caller: str, **kwargs: Any) -> None:
    extra = {**_run_extra("run_action", run), "caller": caller}
    logger.info("Run %s: %s by %s", run, action, caller, extra=extra)


@receiver(signals.job_action, dispatch_uid=UID)
def log_job_action(sender: type, command: str, action: str, subject: str, caller: str, **kwargs: Any) -> None:
    extra = {"action": "job_action", "command": command, "caller": caller}
    logger.info("Job %s: %s of %s by %s", command, action, subject, caller, extra=extra)


@receiver(signals.rate_limit_failed, dispatch_uid=UID)
def log_rate_limit_failed(sender: type, caller: str, error: Exception, **kwargs: Any) -> None:
    extra = {"action": "rate_limit_failed", "caller": caller}
    message = "A request by %s is not limited, because Django's cache is unavailable (%s: %s)"
    logger.warning(message, caller, type(error).__name__, error, extra=extra)


@receiver(signals.run_recreated, dispatch_uid=UID)
def log_run_recreated(sender: type, run: JobRun, **kwargs: Any) -> None:
    logger.warning("Run %s had no record and was recreated", run, extra=_run_extra("run_recreated", run))


@receiver(signals.run_record_failed, dispatch_uid=UID)
def log_run_record_failed(sender: type, run: JobRun, error: Exception, **kwargs: Any) -> None:
    logger.error("Run %s cannot be recorded: %s", run, error, extra=_run_extra("run_record_failed", run))


@receiver(signals.run_reconciled, dispatch_uid=UID)
def log_run_reconciled(sender: type, run: JobRun, **kwargs: Any) -> None:
    level = logging.INFO if run.status == "succeeded" else logging.ERROR
    extra = _run_extra("run_reconciled", run)
    logger.log(level, "Run %s was reconciled to %s (%s)", run, run.status, run.reason or "done", extra=extra)


@receiver(signals.run_redelivered, dispatch_uid=UID)
def log_run_redelivered(sender: type, run: JobRun, silent_since: datetime, **kwargs: Any) -> None:
    extra = _run_extra("run_redelivered", run)
    logger.warning(
        "Run %s was sent again: it has been silent since %s", run, silent_since.isoformat(), extra=extra
    )


@receiver(signals.message_rejected, dispatch_uid=UID)
def log_message_rejected(sender: type, task_id: str, error: Exception, **kwargs: Any) -> None:
    extra = {"action": "message_rejected", "task_id": task_id[:100]}
    logger.error("Message %s of the queue was rejected: %s", task_id[:100], error, extra=extra)


@receiver(signals.lock_release_failed, dispatch_uid=UID)
def log_lock_release_failed(sender: type, run: JobRun, error: Exception, **kwargs: Any) -> None:
    message = "The locks of run %s may be held until their leases end: %s"
    logger.warning(message, run, error, extra=_run_extra("lock_release_failed", run))


@receiver(signals.lock_bypassed, dispatch_uid=UID)
def log_lock_bypassed(sender: type, spec: JobSpec, task: Task, lock: str, error: Exception, **kwargs: Any) -> None:
    extra = _extra("lock_bypassed", spec, task) | {"lock": lock}
    logger.error("Job %s runs without its lock %s: %s", spec.name, lock, error, extra=extra)


@receiver(signals.lease_renewal_failed, dispatch_uid=UID)
def log_lease_renewal_failed(sender: type, lease: Lease, error: Exception, **kwargs: Any) -> None:
    extra = {"action": "lease_renewal_failed", "lock": lease.name, "token": lease.token}
    logger.warning("Lock %s cannot be renewed or released: %s", lease.name, error, extra=extra)


@receiver(signals.lease_lost, dispatch_uid=UID)
def log_lease_lost(sender: type, lease: Lease, reason: str, **kwargs: Any) -> None:
    extra = {"action": "lease_lost", "lock": lease.name, "token": lease.token}
    logger.error("Lock %s is lost: %s", lease.name, reason, extra=extra)


def _bounded(result: Any) -> Any:
    """Shorten a result that is too large for an entry. Numbers and the beginnings of texts remain."""
    if len(text := json.dumps(result, default=str)) <= MAX_RESULT_LENGTH:
        return result
    if not isinstance(result, dict):
        return f"{text[:MAX_ITEM_LENGTH]}…"
    short = ((name, value) for name, value in result.items() if len(str(name)) <= MAX_ITEM_LENGTH)
    values = dict(sorted(short, key=lambda item: not isinstance(item[1], int | float))[:100])
    return {
        name: value if value is None or isinstance(value, int | float) else f"{value}"[:MAX_ITEM_LENGTH]
        for name, value in values.items()
    }


def _names(holders: Sequence[Holder]) -> str:
    return "; ".join(map(str, holders)) or "another holder"


def _attempt(task: Task) -> str:
    """Name the attempt where there can be several."""
    return f" (task {task.index} of {task.count}, attempt {task.attempt})" if task else ""


def _run_extra(action: str, run: JobRun) -> dict[str, Any]:
    return {"action": action, "job": run.job, "run_id": str(run.pk), "execution": run.execution}


def _extra(action: str, spec: JobSpec, task: Task) -> dict[str, Any]:
    extra: dict[str, Any] = {"action": action, "job": spec.name}
    if task:
        extra |= {"run_id": task.run_id, "execution": task.execution}
        extra |= {"task_index": task.index, "task_attempt": task.attempt}
    return extra
