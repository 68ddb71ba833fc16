"""The words of the log, as receivers of the signals: the only place that knows them.

The logger is `cloudrun_jobs`. Each record carries a stable verb, `record.action`, beside its sentence, and no
argument of a job: arguments may be personal data.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from django.dispatch import receiver

from .context import TaskContext
from .signals import job_delayed, job_finished, job_started
from .spec import JobSpec

if TYPE_CHECKING:
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
