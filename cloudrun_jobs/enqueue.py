"""From a call of `delay()` to a request that is recorded, and carried out here or sent."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from django.core.management import get_commands
from django.utils import timezone

from cloudrun_jobs import backends, conf
from cloudrun_jobs.argv import parse
from cloudrun_jobs.backends import InProcessBackend, RemoteBackend, Request
from cloudrun_jobs.command_line import arguments, checked, takes_a_key
from cloudrun_jobs.exceptions import InvalidArguments, JobFailed, JobInterrupted
from cloudrun_jobs.execution.outcome import exit_code_of
from cloudrun_jobs.models import JobRun, Trigger
from cloudrun_jobs.runs import dispatch
from cloudrun_jobs.runs.reservations import arrange, reservation_env
from cloudrun_jobs.signals import job_delayed
from cloudrun_jobs.spec import JobSpec
from cloudrun_jobs.spec.reservation import At, reservation_at, to_utc

if TYPE_CHECKING:
    from cloudrun_jobs.command import CloudRunJobs
    from cloudrun_jobs.operations import Operation

COMMANDS = ".management.commands."


def delay(
    job: CloudRunJobs, args: Sequence[Any], options: Mapping[str, Any], *, key: str | None = None
) -> Operation:
    """Run the job with these arguments, here or in the cloud."""
    spec, run_id = job.spec, str(uuid4())
    _check_that_manage_finds_it(job)
    if key is not None and takes_a_key(job):
        words = f"{spec.command}: delay() has an argument idempotency_key of its own, and so has the command."
        raise InvalidArguments(words, hint="Rename the command's option.")
    written = arguments(job, spec, args, options, {conf.RUN_ID_VARIABLE: run_id})
    return _submit(job, spec, Request(job=spec.name, argv=written, run_id=run_id), key=key)


def delay_argv(job: CloudRunJobs, argv: Sequence[str]) -> Operation:
    """Run the job with arguments as they follow its name."""
    spec, run_id = job.spec, str(uuid4())
    written = checked(job, spec, (spec.command, *argv), {conf.RUN_ID_VARIABLE: run_id})
    return _submit(job, spec, Request(job=spec.name, argv=written, run_id=run_id))


def reserve(job: CloudRunJobs, at: At, args: Sequence[Any], options: Mapping[str, Any]) -> Operation:
    """Run the job with these arguments at that time in the cloud, and now if it is run here."""
    spec, run_id, now = job.spec, str(uuid4()), timezone.now()
    _check_that_manage_finds_it(job)
    reserved = reservation_at(to_utc(at, now), spec.time_zone, now)
    backends.current().check_reserving()
    written = arguments(job, spec, args, options, {conf.RUN_ID_VARIABLE: run_id, **reservation_env(reserved)})
    request = Request(job=spec.name, argv=written, run_id=run_id, told=reservation_env(reserved))
    send = partial(arrange, reservation=reserved)
    return _submit(job, spec, request, send, trigger=Trigger.RESERVE, scheduled_for=reserved.at)


def _submit(
    job: CloudRunJobs,
    spec: JobSpec,
    request: Request,
    send: Callable[[RemoteBackend, JobRun, Request], Operation] = dispatch.dispatch,
    *,
    trigger: Trigger = Trigger.DELAY,
    **values: Any,
) -> Operation:
    """Record the request, and carry it out: in this process, or by `send`."""
    backend = backends.current()
    run, is_to_send = dispatch.record(request, environment=spec.environment, trigger=trigger, **values)
    if not is_to_send:
        return backend.operation(run)  # Asked for before, under the same key.
    request = replace(request, run_id=str(run.pk))
    if backend.is_remote:
        operation = send(cast(RemoteBackend, backend), run, request)
    else:
        operation, run = _run_inline(job, cast(InProcessBackend, backend), run, request)
    job_delayed.send_robust(type(job), spec=spec, run=run, operation=operation)
    return operation


def _run_inline(
    job: CloudRunJobs, backend: InProcessBackend, run: JobRun, request: Request
) -> tuple[Operation, JobRun]:
    """Return the handle and the run as it is afterwards."""
    worker = copy.copy(job)
    worker._run_id, worker._run = request.run_id, run
    operation = backend.perform(request, partial(_run_here, worker, request))
    return operation, worker._run


def _run_here(worker: CloudRunJobs, request: Request) -> Any:
    """Run the job in this process and return its result, by the road `manage.py` takes."""
    options = parse(worker._parser(), request.argv[1:])
    if "skip_checks" in options:
        options["skip_checks"] = True  # As call_command does: the caller's process has been checked.
    try:
        worker.execute(*options.pop("args", ()), **options)
    except JobInterrupted:
        raise  # Meant for the whole process.
    except SystemExit as leaving:
        if code := exit_code_of(leaving.code):
            words = f"{worker.command_name}: run() left by sys.exit() with {leaving.code!r}."
            raise JobFailed(words, code=code) from leaving
    return worker._result


def _check_that_manage_finds_it(job: CloudRunJobs) -> None:
    cls, name = type(job), job.command_name
    app = get_commands().get(name)
    if (
        f"{app}{COMMANDS}{name}" != cls.__module__
        or getattr(sys.modules[cls.__module__], "Command", None) is not cls
    ):
        found = f"{app}{COMMANDS}{name}.Command" if app else "no command of this name"
        raise InvalidArguments(
            f"{cls.__module__}.{cls.__qualname__}: `manage.py {name}` would not run this class, but {found}.",
            hint="A job is the class named Command in <installed app>/management/commands/<name>.py.",
        )
