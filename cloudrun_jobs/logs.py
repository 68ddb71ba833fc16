"""The words of the log, as receivers of the signals: the only place that knows them.

The logger is `cloudrun_jobs`. Each record carries a stable verb, `record.action`, beside its sentence, and no
argument of a job: arguments may be personal data.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.dispatch import receiver

from .context import TaskContext, in_container
from .models import Progress
from .signals import (
    job_delayed,
    job_duplicated,
    job_finished,
    job_progressed,
    job_skipped,
    job_started,
    job_unlocked,
    job_waiting,
    lease_lost,
    lease_troubled,
    run_postponed,
    run_refused,
    run_restored,
    run_settled,
    run_troubled,
)
from .spec import JobSpec

if TYPE_CHECKING:
    from .locks import Holder, Lease
    from .models import JobRun
    from .operations import Operation

logger = logging.getLogger("cloudrun_jobs")


@receiver(job_delayed, dispatch_uid="cloudrun_jobs.logs")
def log_job_delayed(sender: type, spec: JobSpec, run: JobRun, operation: Operation, **kwargs: Any) -> None:
    data = {"action": "job_delayed", "job": spec.name, "run_id": str(run.pk)}
    if run.execution_name:
        logger.info("Job %s was sent as %s", spec.name, operation.execution_name, extra=data)
    elif run.status == "pending" and run.scheduled_for:
        logger.info("Job %s is reserved for %s", spec.name, run.scheduled_for.isoformat(), extra=data)
    elif not run.is_finished:
        logger.info("Job %s will be sent when the transaction is committed", spec.name, extra=data)
    else:
        logger.info("Job %s ran in this process", spec.name, extra=data)


@receiver(job_started, dispatch_uid="cloudrun_jobs.logs")
def log_job_started(sender: type, spec: JobSpec, task: TaskContext | None, **kwargs: Any) -> None:
    logger.info("Job %s started%s", spec.name, _which(task), extra={"action": "job_started", **_data(spec, task)})


@receiver(job_progressed, dispatch_uid="cloudrun_jobs.logs")
def log_job_progressed(
    sender: type,
    spec: JobSpec,
    run: JobRun,
    task: TaskContext | None,
    done: int,
    total: int | None,
    text: str,
    **kwargs: Any,
) -> None:
    data = {**_data(spec, task), "action": "job_progressed", "run_id": str(run.pk)}
    data |= {"done": done, "total": total, "text": text}
    message = f"Job {spec.name} is at {Progress(done, total, text)}{_which(task)}"
    if logger.isEnabledFor(logging.INFO):
        logger.info("%s", message, extra=data)
    elif in_container():
        # Where the project's logging leaves it out, who looks at a container's log wants to see it all the same.
        # Cloud Logging makes an entry with fields of a line of JSON.
        sys.stdout.write(json.dumps({"severity": "INFO", "message": message, **data}) + "\n")
        sys.stdout.flush()


@receiver(job_finished, dispatch_uid="cloudrun_jobs.logs")
def log_job_finished(
    sender: type,
    spec: JobSpec,
    task: TaskContext | None,
    seconds: float,
    error: BaseException | None,
    **kwargs: Any,
) -> None:
    data = {**_data(spec, task), "seconds": round(seconds, 3)}
    if error is None:
        extra = {"action": "job_finished", **data}
        logger.info("Job %s finished in %.1fs%s", spec.name, seconds, _which(task), extra=extra)
    else:
        extra = {"action": "job_failed", "error": type(error).__name__, **data}
        words = "Job %s failed after %.1fs with %s%s"
        logger.error(words, spec.name, seconds, type(error).__name__, _which(task), extra=extra)


@receiver(job_waiting, dispatch_uid="cloudrun_jobs.logs")
def log_job_waiting(sender: type, spec: JobSpec, lock: str, holders: Sequence[Holder], **kwargs: Any) -> None:
    extra = {"action": "job_waiting", "job": spec.name, "lock": lock}
    logger.warning("Job %s waits for the lock %s, held by %s", spec.name, lock, _who(holders), extra=extra)


@receiver(job_skipped, dispatch_uid="cloudrun_jobs.logs")
def log_job_skipped(
    sender: type, spec: JobSpec, task: TaskContext | None, lock: str, holders: Sequence[Holder], **kwargs: Any
) -> None:
    extra = {"action": "job_skipped", "lock": lock, **_data(spec, task)}
    logger.warning("Job %s was skipped: %s is held by %s", spec.name, lock, _who(holders), extra=extra)


@receiver(job_duplicated, dispatch_uid="cloudrun_jobs.logs")
def log_job_duplicated(sender: type, spec: JobSpec, run: JobRun, task: TaskContext | None, **kwargs: Any) -> None:
    extra = {"action": "job_duplicated", **_data(spec, task)}
    words = "Job %s stepped aside: its run %s is %s%s"
    whose = f", the work of {run.execution}" if run.execution else ""
    logger.warning(words, spec.name, run.pk, run.status, whose, extra=extra)


@receiver(run_postponed, dispatch_uid="cloudrun_jobs.logs")
def log_run_postponed(sender: type, run: JobRun, error: Exception, **kwargs: Any) -> None:
    words = "Run %s was not sent yet, `manage.py cloudrun_jobs reconcile` will: %s"
    logger.warning(words, run, error, extra=_about(run, "run_postponed"))


@receiver(run_refused, dispatch_uid="cloudrun_jobs.logs")
def log_run_refused(sender: type, run: JobRun, error: Exception, **kwargs: Any) -> None:
    logger.error("Run %s was not sent: %s", run, error, extra=_about(run, "run_refused"))


@receiver(run_restored, dispatch_uid="cloudrun_jobs.logs")
def log_run_restored(sender: type, run: JobRun, **kwargs: Any) -> None:
    logger.warning("Run %s had no record; one was made", run, extra=_about(run, "run_restored"))


@receiver(run_troubled, dispatch_uid="cloudrun_jobs.logs")
def log_run_troubled(sender: type, run: JobRun, error: Exception, **kwargs: Any) -> None:
    words = "Run %s: its record could not be written: %s"
    logger.error(words, run, error, extra=_about(run, "run_troubled"))


@receiver(run_settled, dispatch_uid="cloudrun_jobs.logs")
def log_run_settled(sender: type, run: JobRun, **kwargs: Any) -> None:
    level = logging.INFO if run.status == "succeeded" else logging.ERROR
    words = "Run %s %s (%s), as was found later"
    logger.log(level, words, run, run.status, run.reason or "done", extra=_about(run, "run_settled"))


@receiver(job_unlocked, dispatch_uid="cloudrun_jobs.logs")
def log_job_unlocked(
    sender: type, spec: JobSpec, task: TaskContext | None, lock: str, error: Exception, **kwargs: Any
) -> None:
    extra = {"action": "job_unlocked", "lock": lock, **_data(spec, task)}
    logger.error("Job %s runs without its lock %s: %s", spec.name, lock, error, extra=extra)


@receiver(lease_troubled, dispatch_uid="cloudrun_jobs.logs")
def log_lease_troubled(sender: type, lease: Lease, error: Exception, **kwargs: Any) -> None:
    extra = {"action": "lease_troubled", "lock": lease.name, "token": lease.token}
    logger.warning("Lock %s: its server could not be told: %s", lease.name, error, extra=extra)


@receiver(lease_lost, dispatch_uid="cloudrun_jobs.logs")
def log_lease_lost(sender: type, lease: Lease, reason: str, **kwargs: Any) -> None:
    extra = {"action": "lease_lost", "lock": lease.name, "token": lease.token}
    logger.error("Lock %s is lost: %s", lease.name, reason, extra=extra)


def _who(holders: Sequence[Holder]) -> str:
    return "; ".join(map(str, holders)) or "others"


def _which(task: TaskContext | None) -> str:
    """Name the attempt where there can be several."""
    return f" (task {task.index} of {task.count}, attempt {task.attempt})" if task else ""


def _about(run: JobRun, action: str) -> dict[str, Any]:
    return {"action": action, "job": run.job, "run_id": str(run.pk), "execution": run.execution}


def _data(spec: JobSpec, task: TaskContext | None) -> dict[str, Any]:
    if task is None:
        return {"job": spec.name}
    return {
        "job": spec.name,
        "run_id": task.run_id,
        "execution": task.execution,
        "task_index": task.index,
        "task_attempt": task.attempt,
    }
