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

from cloudrun_jobs.environ import CloudRunTask, in_container
from cloudrun_jobs.models import Progress
from cloudrun_jobs.signals import (
    dispatch_failed,
    dispatch_postponed,
    execution_superseded,
    job_delayed,
    job_finished,
    job_progressed,
    job_skipped,
    job_started,
    job_waiting,
    lease_lost,
    lease_renewal_failed,
    lock_bypassed,
    run_reconciled,
    run_record_failed,
    run_recreated,
)
from cloudrun_jobs.spec import JobSpec

if TYPE_CHECKING:
    from cloudrun_jobs.locks import Holder, Lease
    from cloudrun_jobs.models import JobRun
    from cloudrun_jobs.operations import Operation

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
def log_job_started(sender: type, spec: JobSpec, task: CloudRunTask | None, **kwargs: Any) -> None:
    logger.info("Job %s started%s", spec.name, _which(task), extra={"action": "job_started", **_data(spec, task)})


@receiver(job_progressed, dispatch_uid="cloudrun_jobs.logs")
def log_job_progressed(
    sender: type,
    spec: JobSpec,
    run: JobRun,
    task: CloudRunTask | None,
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
    task: CloudRunTask | None,
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
    sender: type, spec: JobSpec, task: CloudRunTask | None, lock: str, holders: Sequence[Holder], **kwargs: Any
) -> None:
    extra = {"action": "job_skipped", "lock": lock, **_data(spec, task)}
    logger.warning("Job %s was skipped: %s is held by %s", spec.name, lock, _who(holders), extra=extra)


@receiver(execution_superseded, dispatch_uid="cloudrun_jobs.logs")
def log_execution_superseded(
    sender: type, spec: JobSpec, run: JobRun, task: CloudRunTask | None, **kwargs: Any
) -> None:
    extra = {"action": "execution_superseded", **_data(spec, task)}
    words = "Job %s stepped aside: its run %s is %s%s"
    whose = f", the work of {run.execution}" if run.execution else ""
    logger.warning(words, spec.name, run.pk, run.status, whose, extra=extra)


@receiver(dispatch_postponed, dispatch_uid="cloudrun_jobs.logs")
def log_dispatch_postponed(sender: type, run: JobRun, error: Exception, **kwargs: Any) -> None:
    words = "Run %s was not sent yet, `manage.py cloudrun_jobs reconcile` will: %s"
    logger.warning(words, run, error, extra=_about(run, "dispatch_postponed"))


@receiver(dispatch_failed, dispatch_uid="cloudrun_jobs.logs")
def log_dispatch_failed(sender: type, run: JobRun, error: Exception, **kwargs: Any) -> None:
    logger.error("Run %s was not sent: %s", run, error, extra=_about(run, "dispatch_failed"))


@receiver(run_recreated, dispatch_uid="cloudrun_jobs.logs")
def log_run_recreated(sender: type, run: JobRun, **kwargs: Any) -> None:
    logger.warning("Run %s had no record; one was made", run, extra=_about(run, "run_recreated"))


@receiver(run_record_failed, dispatch_uid="cloudrun_jobs.logs")
def log_run_record_failed(sender: type, run: JobRun, error: Exception, **kwargs: Any) -> None:
    words = "Run %s: its record could not be written: %s"
    logger.error(words, run, error, extra=_about(run, "run_record_failed"))


@receiver(run_reconciled, dispatch_uid="cloudrun_jobs.logs")
def log_run_reconciled(sender: type, run: JobRun, **kwargs: Any) -> None:
    level = logging.INFO if run.status == "succeeded" else logging.ERROR
    words = "Run %s %s (%s), as was found later"
    logger.log(level, words, run, run.status, run.reason or "done", extra=_about(run, "run_reconciled"))


@receiver(lock_bypassed, dispatch_uid="cloudrun_jobs.logs")
def log_lock_bypassed(
    sender: type, spec: JobSpec, task: CloudRunTask | None, lock: str, error: Exception, **kwargs: Any
) -> None:
    extra = {"action": "lock_bypassed", "lock": lock, **_data(spec, task)}
    logger.error("Job %s runs without its lock %s: %s", spec.name, lock, error, extra=extra)


@receiver(lease_renewal_failed, dispatch_uid="cloudrun_jobs.logs")
def log_lease_renewal_failed(sender: type, lease: Lease, error: Exception, **kwargs: Any) -> None:
    extra = {"action": "lease_renewal_failed", "lock": lease.name, "token": lease.token}
    logger.warning("Lock %s: its server could not be told: %s", lease.name, error, extra=extra)


@receiver(lease_lost, dispatch_uid="cloudrun_jobs.logs")
def log_lease_lost(sender: type, lease: Lease, reason: str, **kwargs: Any) -> None:
    extra = {"action": "lease_lost", "lock": lease.name, "token": lease.token}
    logger.error("Lock %s is lost: %s", lease.name, reason, extra=extra)


def _who(holders: Sequence[Holder]) -> str:
    return "; ".join(map(str, holders)) or "others"


def _which(task: CloudRunTask | None) -> str:
    """Name the attempt where there can be several."""
    return f" (task {task.index} of {task.count}, attempt {task.attempt})" if task else ""


def _about(run: JobRun, action: str) -> dict[str, Any]:
    return {"action": action, "job": run.job, "run_id": str(run.pk), "execution": run.execution}


def _data(spec: JobSpec, task: CloudRunTask | None) -> dict[str, Any]:
    if task is None:
        return {"job": spec.name}
    return {
        "job": spec.name,
        "run_id": task.run_id,
        "execution": task.execution,
        "task_index": task.index,
        "task_attempt": task.attempt,
    }
