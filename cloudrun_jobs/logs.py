"""The words of the log, as receivers of the signals: the only place that knows them.

The logger is `cloudrun_jobs`. Each record carries a stable verb, `record.action`, beside its sentence, and no
argument of a job: arguments may be personal data.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.dispatch import receiver

from .context import TaskContext
from .signals import (
    job_delayed,
    job_finished,
    job_skipped,
    job_started,
    job_unlocked,
    job_waiting,
    lease_lost,
    lease_troubled,
)
from .spec import JobSpec

if TYPE_CHECKING:
    from .locks import Holder, Lease
    from .operations import Operation

logger = logging.getLogger("cloudrun_jobs")


@receiver(job_delayed, dispatch_uid="cloudrun_jobs.logs")
def log_job_delayed(sender: type, spec: JobSpec, operation: Operation, **kwargs: Any) -> None:
    data = {"action": "job_delayed", "job": spec.name, "run_id": operation.run_id}
    if operation.console_url:
        logger.info("Job %s was sent as %s", spec.name, operation.execution_name, extra=data)
    else:
        logger.info("Job %s ran in this process", spec.name, extra=data)


@receiver(job_started, dispatch_uid="cloudrun_jobs.logs")
def log_job_started(sender: type, spec: JobSpec, task: TaskContext | None, **kwargs: Any) -> None:
    logger.info("Job %s started%s", spec.name, _which(task), extra={"action": "job_started", **_data(spec, task)})


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
