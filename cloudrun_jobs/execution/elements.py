"""Read the arguments of a task of `delay_many()` from its record: they are not on its command line."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

from cloudrun_jobs import environ
from cloudrun_jobs.exceptions import RecordTablesMissing, RecordUnavailable
from cloudrun_jobs.execution.deadlines import RECORD_START_LIMIT_SECONDS
from cloudrun_jobs.execution.outcome import NOT_STARTED
from cloudrun_jobs.models import JobRun, TaskRun
from cloudrun_jobs.runs import database
from cloudrun_jobs.terminal import escape

if TYPE_CHECKING:
    from cloudrun_jobs.environ import CloudRunTask
    from cloudrun_jobs.spec.command import JobCommand


def command_line(job: JobCommand, given: list[str]) -> list[str]:
    """Return the command line of this task's element, unless the given one already has arguments.

    Exits with 0 in a task without an element, and with 75 if the record cannot be read.
    """
    task = environ.current_task()
    if task is None or len(given) > 2:  # A command that the job starts inherits the job's variables.
        return given
    try:
        arguments = database.retry_until_available(
            partial(_read, job.command_name, task), seconds=RECORD_START_LIMIT_SECONDS
        )
    except (RecordUnavailable, RecordTablesMissing) as error:
        job.stderr.write(escape(str(error)))
        sys.exit(NOT_STARTED)
    return given if arguments is None else [given[0], *arguments]


def _read(command: str, task: CloudRunTask) -> list[str] | None:
    """Return the arguments after `manage.py`; None if the run belongs to another command."""
    run = JobRun.objects.filter(pk=task.run_id).first()
    if run is not None and run.command != command:
        return None
    if task.index >= task.count:
        sys.exit(0)  # A surplus task: Cloud Run accepts no fewer tasks than `task_parallelism`.
    element = None if run is None else TaskRun.objects.filter(run=run, index=task.index).first()
    if element is None or element.argv is None:
        message = f"The arguments of task {task.index} of run {task.run_id} are not recorded."
        raise RecordUnavailable(message, hint="The record was deleted: call delay_many() again.")
    arguments: list[str] = element.argv
    return arguments
