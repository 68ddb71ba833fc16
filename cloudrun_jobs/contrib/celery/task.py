"""The Celery task that runs jobs.

The message contains the id of a run. The record of the run determines whether the message starts an attempt, its
arguments, and the maximum number of attempts.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from celery import Task, shared_task
from celery.exceptions import Reject
from django.db import Error, connections

from cloudrun_jobs import conf, environ
from cloudrun_jobs.backends.celery.messages import TASK, parse_task_id
from cloudrun_jobs.exceptions import InvalidRunId, JobFailed, RecordUnavailable

if TYPE_CHECKING:
    from cloudrun_jobs.execution.delivery import Delivery, Report
    from cloudrun_jobs.execution.termination import Termination
    from cloudrun_jobs.models import JobRun

# The pause before a message with an unknown command is delivered again.
UNKNOWN_COMMAND_DELAY = 5  # seconds

MAX_RETRY_DELAY = 60.0  # seconds


class RunTask(Task):  # type: ignore[misc]  # Celery has no annotations
    """A task that is delivered again if its worker dies. The record of the run counts its attempts."""

    Request = "cloudrun_jobs.contrib.celery.request:RunRequest"
    acks_late = True
    reject_on_worker_lost = True
    ignore_result = True
    max_retries = None
    serializer = "json"
    throws = (Exception,)  # The log of this package has the error already.


@shared_task(bind=True, base=RunTask, name=TASK)  # type: ignore[untyped-decorator]
def run(task: RunTask, *args: Any, **kwargs: Any) -> None:
    """Run one task of a recorded run."""
    from cloudrun_jobs import signals  # Only workers need these.
    from cloudrun_jobs.execution import interrupts
    from cloudrun_jobs.models import JobRun
    from cloudrun_jobs.process.deferral import discard_deferred

    with interrupts.handle_signals() as termination:
        try:
            with conf.reading_once():
                found, index = _find_run(task.request.id, args, kwargs)
                _run(task, found, index, termination)
        except InvalidRunId as error:
            signals.message_rejected.send_robust(JobRun, task_id=str(task.request.id), error=error)
        except (RecordUnavailable, Error) as error:
            raise _retry(task, error, task.request.retries) from error
        finally:
            discard_deferred()  # A signal after the end of the attempt: the message decides what follows.
            if termination.is_signalled and environ.in_pool_process():
                _exit()


def _run(task: RunTask, found: JobRun, index: int | None, termination: Termination) -> None:
    from cloudrun_jobs import signals
    from cloudrun_jobs.execution.delivery import deliver, receive
    from cloudrun_jobs.execution.supervision import fail_unknown_command

    job, failure = find_command(found.command)
    if job is None:
        if fail_unknown_command(found, failure):
            return
        raise task.retry(countdown=UNKNOWN_COMMAND_DELAY, exc=JobFailed(failure))
    delivery = receive(found, index, f"{task.request.hostname}/{os.getpid()}")
    if termination.is_requested():
        raise _give_back()
    if not delivery.is_due:
        signals.execution_superseded.send_robust(type(job), spec=job.spec, run=found, task=delivery.task)
    _reply(task, delivery, deliver(job, delivery))


def _reply(task: RunTask, delivery: Delivery, report: Report) -> None:
    """Raise the exception that makes Celery requeue the message, retry it later, or report the job's failure."""
    from cloudrun_jobs.execution.delivery import Result

    match report.result:
        case Result.INTERRUPTED:
            raise _give_back()
        case Result.RETRY:
            raise _retry(task, report.error, delivery.failures)
        case Result.UNAVAILABLE:
            raise _retry(task, report.error, task.request.retries)
        case Result.ENDED if report.error is not None:
            raise _reported(report.error)


def _find_run(task_id: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[JobRun, int | None]:
    """Return the run that the message names, and the index of its task.

    Raises `InvalidRunId` for a message that `delay()` has not sent, and `RecordUnavailable`.
    """
    from cloudrun_jobs.execution.deadlines import RECORD_START_LIMIT_SECONDS
    from cloudrun_jobs.models import JobRun
    from cloudrun_jobs.runs import database

    parsed = parse_task_id(str(task_id))
    if parsed is None or kwargs or list(args) != [parsed[0]]:
        raise InvalidRunId("Expected the id of a run as the id of the task, and as its only argument.")
    run_id, index = parsed
    find = JobRun.objects.filter(pk=run_id).first
    run = database.retry_until_available(find, seconds=RECORD_START_LIMIT_SECONDS)
    if run is None:
        raise InvalidRunId(f"The run {run_id} has no record: it was deleted, or is in another database.")
    environment, count = conf.load().environment, run.elements or run.task_count
    if run.environment != environment:
        raise InvalidRunId(f"Expected a run of the environment {environment!r}, got one of {run.environment!r}.")
    if index is not None and index >= count:
        raise InvalidRunId(f"Expected the index of one of {count} tasks, got {index}.")
    return run, index


def find_command(command: str) -> tuple[Any, str]:
    """Return a new instance of the command, or None and the reason."""
    from cloudrun_jobs.registry import find_job

    try:
        job, failure = find_job(command), "no such job"
        if job is not None:
            _ = job.spec  # It may be invalid.
    except (Exception, SystemExit) as error:  # noqa: BLE001  (a module may raise anything while it is imported)
        job, failure = None, f"{type(error).__name__}: {error}"
    return job, f"No worker of the queue can run the command {command!r}: {failure}."


def _give_back() -> Reject:
    """Return the exception that requeues the message for another worker, because this one is being shut down.

    A process of a pool exits before the exception is raised, which requeues the message too.
    """
    return Reject("The worker is being shut down.", requeue=True)


def _exit() -> NoReturn:
    """Exit this process of the pool, because Celery has terminated it.

    Otherwise, Celery would attribute the exit to the next task. The exit is immediate, because Celery's own
    takes two seconds longer, and Cloud Run kills a worker ten seconds after SIGTERM.
    """
    connections.close_all()
    logging.shutdown()
    os._exit(0)


def _retry(task: RunTask, error: BaseException | None, earlier: int) -> Exception:
    """Send the message again, later after each failure; return the exception that acknowledges this one."""
    delay = min(2 ** min(earlier + 1, 10), MAX_RETRY_DELAY)
    retry: Exception = task.retry(countdown=delay, exc=error and _reported(error), throw=False)
    return retry


def _reported(error: BaseException) -> Exception:
    """Return the error in a form that Celery reports: it treats other exceptions as the death of the process."""
    return error if isinstance(error, Exception) else JobFailed(f"{type(error).__name__}: {error}")
