"""Act on the execution behind a run's record, through the configured backend.

The command's code may be gone by then: only `rerun()` needs it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from django.core.management import get_commands, load_command_class
from django.db import transaction
from django.db.models import Q

from cloudrun_jobs import backends
from cloudrun_jobs.exceptions import CloudRunJobsError
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.operations import Operation
from cloudrun_jobs.runs import local_output, reruns, reservations
from cloudrun_jobs.runs.database import database_alias
from cloudrun_jobs.spec.overrides import Overrides


def operation(run: JobRun) -> Operation:
    """Return the handle on the run's execution, as `delay()` returns it."""
    return backends.for_run(run).operation(run)


def refresh(run: JobRun) -> JobRun:
    """Reload the record, after updating it from the backend if the run is unfinished or interrupted."""
    run.refresh_from_db()
    if run.execution and (not run.is_finished or run.is_interrupted):
        operation(run).done()
        run.refresh_from_db()
    return run


def cancel(run: JobRun) -> bool:
    """Cancel the run; return False if it had already ended. A pending run is no longer dispatched."""
    if run.transition(Status.CANCELLED, Q(status=Status.PENDING), finished_at=Now(), reason="cancelled"):
        if run.is_reserved:
            release = partial(reservations.release, backends.for_run(run), run)
            transaction.on_commit(release, using=database_alias(), robust=True)
        return True
    run.update_if(Q(status__in=(Status.SENT, Status.RUNNING)), cancel_requested_at=Now())
    run.refresh_from_db()
    if run.is_finished or not run.execution:
        return False
    # The process of `run --local` reads the request from the record: no backend knows its execution.
    return local_output.path_of(run.execution) is not None or bool(operation(run).cancel())


def rerun(run: JobRun, *, failed_only: bool = False) -> Operation:
    """Start a new run of the same job with the same arguments. Raises `CloudRunJobsError`.

    With `failed_only`, it repeats only failed tasks and items.
    """
    arguments = run.argv
    if not reruns.is_command_line(arguments):
        hint = "Call delay() of the command instead."
        raise CloudRunJobsError(f"{run}: cannot be rerun, its arguments were not recorded.", hint=hint)
    app = get_commands().get(run.command)
    command = load_command_class(app, run.command) if app else None
    if not hasattr(command, "delay_argv"):
        found = "no longer exists" if app is None else "is no longer a Cloud Run job"
        raise CloudRunJobsError(f"{run}: cannot be rerun, the command {run.command!r} {found}.")
    started: Operation = configured(command, run, failed_only=failed_only).delay_argv(arguments[1:])
    return started


def configured(command: Any, run: JobRun, *, failed_only: bool = False) -> Any:
    """Return the command, set up to repeat the run. Raises `InvalidArguments` and `RerunRefused`."""
    overrides = Overrides.decode(run.overrides).given
    if failed_only:
        at_once, in_process = command.spec.task_parallelism or 1, backends.for_job(command.spec).runs_in_process
        repeats = reruns.repeat_failed(run, task_parallelism=at_once, runs_in_process=in_process)
    else:
        repeats = reruns.repeat_all(run)
    if failed_only or run.elements:
        overrides["tasks"] = repeats.tasks
    command = command.using(**overrides)
    command._active.repeats = repeats
    return command
