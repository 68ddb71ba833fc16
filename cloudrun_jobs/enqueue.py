"""Turn a call of `delay()` or `reserve()` into a recorded run, and submit it."""

from __future__ import annotations

import copy
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from django.core.management import get_commands
from django.utils import timezone
from django.utils.asyncio import async_unsafe

from cloudrun_jobs import argv, backends, command_line, conf
from cloudrun_jobs.backends import Backend, Request
from cloudrun_jobs.environ import RUN_ID_VARIABLE, CloudRunTask, variables_set
from cloudrun_jobs.exceptions import InvalidArguments, InvalidJob, JobInterrupted, LeaseLost
from cloudrun_jobs.execution.active import ActiveRun
from cloudrun_jobs.execution.claim import Invocation
from cloudrun_jobs.execution.in_process import execute
from cloudrun_jobs.execution.outcome import outcome_of
from cloudrun_jobs.models import JobRun, Status, TaskRun, Trigger
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.runs import database, dispatch, reservations
from cloudrun_jobs.signals import job_delayed
from cloudrun_jobs.spec.overrides import NO_OVERRIDES, Overrides
from cloudrun_jobs.spec.reservation import At, to_utc
from cloudrun_jobs.spec.shares import Shares

if TYPE_CHECKING:
    from cloudrun_jobs.operations import Operation
    from cloudrun_jobs.spec import JobSpec
    from cloudrun_jobs.spec.command import JobCommand

MAX_ELEMENTS = 10_000  # Cloud Run's limit on the tasks of an execution.


@async_unsafe("delay() cannot be called from async code: `await` adelay() instead.")
def delay(
    job: JobCommand,
    args: Sequence[Any],
    options: Mapping[str, Any],
    *,
    key: str | None = None,
) -> Operation:
    """Run the job with these arguments, in this process or in the cloud."""
    return request_run(job, args, options, key=key)[0]


def request_run(
    job: JobCommand,
    args: Sequence[Any],
    options: Mapping[str, Any],
    *,
    key: str | None = None,
    run_id: str = "",
    trigger: Trigger = Trigger.DELAY,
    parser: ArgumentParser | None = None,
) -> tuple[Operation, JobRun, bool]:
    """Like `delay()`; return the run as well, and False if an earlier request with the same key has requested it.

    `run_id` is the id of a new run, and `parser` is a new one of the command.
    """
    with conf.reading_once():
        spec, run_id = job.spec, run_id or str(uuid4())
        _reject_unreachable_class(job)
        if key is not None and command_line.has_idempotency_key_option(job):
            message = f"{spec.command}: idempotency_key is a parameter of delay() and an option of the command."
            raise InvalidArguments(message, hint="Rename the command's option.")
        overrides = _overrides(job)
        arguments = command_line.build(job, args, options, {**overrides.env, RUN_ID_VARIABLE: run_id}, parser)
        request = Request(job=spec.name, argv=arguments, run_id=run_id, overrides=overrides)
        return _submit(job, spec, request, trigger=trigger, key=key)


@async_unsafe("delay_argv() cannot be called from async code: use adelay(), or sync_to_async(command.delay_argv).")
def delay_argv(job: JobCommand, arguments: Sequence[str]) -> Operation:
    """Run the job with command-line arguments."""
    return request_run_argv(job, arguments)[0]


def request_run_argv(
    job: JobCommand,
    arguments: Sequence[str],
    *,
    key: str | None = None,
    run_id: str = "",
    trigger: Trigger = Trigger.DELAY,
) -> tuple[Operation, JobRun, bool]:
    """Like `request_run()`, with command-line arguments."""
    spec, run_id = job.spec, run_id or str(uuid4())
    repeats = job._active.repeats if job._active is not None else None
    elements = repeats.elements if repeats else ()
    overrides = _overrides_for(job, len(elements)) if elements else _overrides(job)
    env = {**overrides.env, RUN_ID_VARIABLE: run_id}
    validated = [command_line.validate(job, each, env) for each in elements or [(spec.command, *arguments)]]
    request = Request(
        job=spec.name,
        argv=(spec.command,) if elements else validated[0],
        run_id=run_id,
        overrides=overrides,
        elements=len(elements) or None,
    )
    values = repeats.values if repeats else {}
    tasks = validated if elements else ()
    return _submit(job, spec, request, trigger=trigger, key=key, elements=tasks, **values)


@async_unsafe("reserve() cannot be called from async code: use sync_to_async(command.reserve), as adelay() does.")
def reserve(job: JobCommand, at: At, args: Sequence[Any], options: Mapping[str, Any]) -> Operation:
    """Run the job with these arguments at that time in the cloud, or now in this process."""
    spec, run_id, now = job.spec, str(uuid4()), timezone.now()
    _reject_unreachable_class(job)
    backend = backends.for_job(spec)
    backend.check_reserve()
    reservation = backend.reservation_at(to_utc(at, now), spec, now)
    overrides, env = _overrides(job), reservations.reservation_env(reservation)
    arguments = command_line.build(job, args, options, {**overrides.env, RUN_ID_VARIABLE: run_id, **env})
    request = Request(job=spec.name, argv=arguments, run_id=run_id, overrides=overrides, extra_env=env)
    send = partial(reservations.reserve, reservation=reservation)
    send_later = partial(reservations.reserve_or_dispatch, reservation=reservation)
    return _submit(job, spec, request, send, send_later, trigger=Trigger.RESERVE, scheduled_for=reservation.at)[0]


@async_unsafe("delay_many() cannot be called from async code: use sync_to_async(command.delay_many).")
def delay_many(job: JobCommand, elements: Iterable[Mapping[str, Any]]) -> Operation:
    """Run the job once for each element, in the tasks of one execution, or one after the other in this process."""
    with conf.reading_once():
        spec, run_id = job.spec, str(uuid4())
        _reject_unreachable_class(job)
        if isinstance(elements, Mapping | str) or not isinstance(elements, Iterable):
            got = f"{type(elements).__name__} {elements!r:.100}"
            message = f"{spec.command}: delay_many(): expected a list of dictionaries of options, got {got}."
            raise InvalidArguments(message)
        given = list(elements)
        overrides, count = _overrides_for(job, len(given)), len(given)
        request = Request(job=spec.name, argv=(spec.command,), run_id=run_id, overrides=overrides, elements=count)
        arguments = list(_elements_arguments(job, given, request.env))
    return _submit(job, spec, request, elements=arguments)[0]


def submit_trigger(
    job: JobCommand, arguments: tuple[str, ...], *, test_mode: bool = False, **values: Any
) -> tuple[JobRun, bool]:
    """Submit a run of the job. Return its record, and True if an earlier call created it.

    `arguments` are those after `manage.py`, `values` are fields of the record. An earlier run with the same
    `schedule` and `scheduled_for` is returned. A run that cannot be submitted now is submitted by `reconcile`.
    """
    spec, overrides = job.spec, _overrides(job)
    if test_mode:
        env = {conf.TEST_MODE_VARIABLE: "1"}
        overrides = overrides.updated(spec, tasks=None, timeout=None, env=env)
    request = Request(job=spec.name, argv=arguments, run_id=str(uuid4()), overrides=overrides)
    _, run, is_new = _submit(job, spec, request, _send_or_postpone, **values)
    return run, not is_new


def _send_or_postpone(backend: Backend, run: JobRun, request: Request) -> Operation:
    dispatch.log_dispatch_errors(run, partial(dispatch.submit, backend, run, request))
    return backend.operation(run)


def run_in_process(
    job: JobCommand, arguments: tuple[str, ...], *, test_mode: bool = False, **values: Any
) -> tuple[JobRun, bool]:
    """Run the job in this process with any backend. Return its record, and True if an earlier call created it.

    `arguments` are those after `manage.py`, `values` are fields of the record. Exceptions of the job are recorded,
    not raised. An earlier run with the same `schedule` and `scheduled_for` is returned unless it has failed.
    """
    spec, run_id = job.spec, uuid4()
    worker = copy.copy(job)
    if test_mode:
        worker.test_mode = True
    worker._active = active = ActiveRun(is_requested=True)
    values = {"schedule": None, "scheduled_for": None, "pk": run_id, **values}
    active.trigger = Invocation(spec.command, spec.environment, list(arguments), values=values)
    try:
        execute(worker, active, arguments)
    except (Exception, JobInterrupted, LeaseLost):
        if active.run is None:  # It has not started.
            raise
    run = cast("JobRun", active.run)
    if not run.is_finished:  # The outcome is known here, even if it could not be recorded.
        run = JobRun.objects.filter(pk=run.pk).first() or run
    return run, run.pk != run_id


def _submit(
    job: JobCommand,
    spec: JobSpec,
    request: Request,
    send: Callable[[Backend, JobRun, Request], Operation] = dispatch.send,
    send_later: Callable[[Backend, JobRun, Request], str] = dispatch.submit,
    *,
    trigger: Trigger = Trigger.DELAY,
    key: str | None = None,
    elements: Sequence[tuple[str, ...]] = (),
    **values: Any,
) -> tuple[Operation, JobRun, bool]:
    """Record the request; run it in this process, or submit it once the caller's transaction has committed.

    `elements` has the arguments of each element of `delay_many()`. The third value is False if an earlier request
    with the same key has requested the run.
    """
    backend, using = backends.for_job(spec), dispatch.followed_transaction()
    request = _addressed(request, backend, spec)
    run = dispatch.new_run(
        request,
        environment=spec.environment,
        backend=backend.alias,
        trigger=trigger,
        key=key,
        **values,
    )
    tasks = [_element_task(run, *element) for element in enumerate(elements)]
    if backend.runs_in_process or using in {None, database.database_alias()}:
        run, is_new = dispatch.record(run, key, tasks)
        if not is_new:
            return backends.for_run(run).operation(run), run, False
        request = replace(request, run_id=str(run.pk))
        if backend.runs_in_process:
            operation, run = _run_inline(job, backend, run, request, elements)
        elif using is None:
            operation = send(backend, run, request)
        else:
            dispatch.after_commit(run, partial(send_later, backend, run, request), using)
            operation = backend.operation(run)
    else:
        earlier = dispatch.find_earlier(run, key)
        if earlier is not None and earlier.reason not in dispatch.UNDISPATCHED_REASONS:
            return backends.for_run(earlier).operation(earlier), earlier, False
        operation = backend.operation(run)

        def work(recorded: JobRun) -> str:
            return send_later(backend, recorded, replace(request, run_id=str(recorded.pk)))

        dispatch.record_after_commit(run, key, work, operation, using, tasks)
    job_delayed.send_robust(type(job), spec=spec, run=run, operation=operation)
    return operation, run, True


def _addressed(request: Request, backend: Backend, spec: JobSpec) -> Request:
    """Return the request with what the backend needs to know of the job.

    Raises `InvalidJob`, `InvalidArguments` and `InvalidSettings`.
    """
    backend.check_tasks(request)
    if problems := list(backend.problems(spec)):
        raise InvalidJob(spec.command, problems)
    if backend.tracks_executions:
        return replace(request, script=spec.script)  # The job's resource has the number of tasks.
    tasks = request.elements or request.overrides.tasks or spec.tasks
    timeout = int((request.overrides.timeout or spec.timeout).total_seconds())
    return replace(request, queue=backend.queue_of(spec), tasks=tasks, timeout=timeout)


def _overrides(job: JobCommand) -> Overrides:
    """Return what `using()` has set."""
    return job._active.overrides if job._active is not None else NO_OVERRIDES


def _elements_arguments(
    job: JobCommand, elements: Sequence[Mapping[str, Any]], env: Mapping[str, str]
) -> Iterator[tuple[str, ...]]:
    """Yield the arguments of each element. Raises `InvalidArguments` with the index of an invalid one."""
    parser = argv.parser_of(job)
    for index, element in enumerate(elements):
        try:
            yield command_line.build(job, (), _options_of(element), env, parser)
        except InvalidArguments as error:
            raise InvalidArguments(f"delay_many(): element {index}: {error.args[0]}", hint=error.hint) from None


def _options_of(element: object) -> Mapping[str, Any]:
    if isinstance(element, Mapping) and all(isinstance(name, str) for name in element):
        return element
    raise InvalidArguments(f"expected a dictionary of the job's options, got {element!r:.100}.")


def _overrides_for(job: JobCommand, elements: int) -> Overrides:
    """Return the overrides of a run with a task for each element. Raises `InvalidArguments`."""
    overrides, spec, hint = _overrides(job), job.spec, ""
    if overrides.tasks is not None:
        expected, hint = f"no using(tasks=...), got {overrides.tasks}", "The run has one task for each element."
    elif not elements:
        expected, hint = "at least one element, got none", "Call it only if there is something to run."
    elif elements > MAX_ELEMENTS:
        expected = f"at most {MAX_ELEMENTS} elements, Cloud Run's limit on tasks, got {elements}"
        hint = "Call it several times, or divide the work among fewer tasks with claim()."
    if hint:
        raise InvalidArguments(f"{spec.command}: delay_many(): expected {expected}.", hint=hint)
    # Cloud Run accepts no fewer tasks than `task_parallelism`; tasks without an element end at once.
    return overrides.updated(spec, tasks=max(elements, spec.task_parallelism or 1), timeout=None, env=None)


def _element_task(run: JobRun, index: int, arguments: tuple[str, ...]) -> TaskRun:
    """Return the record of the element's task, before it is inserted."""
    return TaskRun(run_id=run.pk, index=index, worker=run.pk, status=Status.PENDING, argv=[*arguments])


def _run_inline(
    job: JobCommand, backend: Backend, run: JobRun, request: Request, elements: Sequence[tuple[str, ...]]
) -> tuple[Operation, JobRun]:
    """Run the job in this process; return the handle and the finished run."""
    tasks = elements or [request.argv] * (len(Shares.decode(run.shares).indexes) if run.shares else 1)
    if elements or len(tasks) > 1:
        return _run_tasks(job, backend, run, request, tasks)
    worker = copy.copy(job)
    worker._active = active = ActiveRun(run=run, is_requested=True)
    with variables_set(request.overrides.env):
        operation = backend.submit(run, replace(request, work=partial(execute, worker, active, request.argv)))
    return operation, active.run or run


def _run_tasks(
    job: JobCommand, backend: Backend, run: JobRun, request: Request, tasks: Sequence[tuple[str, ...]]
) -> tuple[Operation, JobRun]:
    """Run each task, given its arguments, in order. A failure is recorded, and the next task runs."""
    failure: BaseException | None = None
    with variables_set(request.overrides.env), _remaining_cancelled(run):
        for index, arguments in enumerate(tasks):
            worker = copy.copy(job)
            worker._active = active = ActiveRun(run=run, is_requested=True)
            active.task = CloudRunTask(request.job, "", index, 0, len(tasks), request.run_id)
            try:
                execute(worker, active, arguments)
            except (Exception, LeaseLost) as error:  # noqa: BLE001  (of run(); the record of the task has it)
                failure = error
    run.refresh_from_db()
    if failure is not None and not run.is_finished:  # The failure could not be recorded.
        raise failure
    return backend.operation(run), run


@contextmanager
def _remaining_cancelled(run: JobRun) -> Iterator[None]:
    """If the block is interrupted, end the run and cancel the tasks that have not started."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as error:
        outcome = outcome_of(error)
        run.transition(outcome.status, finished_at=Now(), reason=outcome.reason, **outcome.error)
        waiting = TaskRun.objects.filter(run=run.pk, status=Status.PENDING)
        waiting.update(status=Status.CANCELLED, reason=outcome.reason, finished_at=Now())
        raise


def _reject_unreachable_class(job: JobCommand) -> None:
    """Raise `InvalidArguments` unless `manage.py <name>` runs this class."""
    cls, name = type(job), job.command_name
    app = get_commands().get(name)
    module = f"{app}.management.commands.{name}"
    if module != cls.__module__ or getattr(sys.modules[module], "Command", None) is not cls:
        found = f"{module}.Command" if app else "no command of this name"
        raise InvalidArguments(
            f"{cls.__module__}.{cls.__qualname__}: `manage.py {name}` would not run this class, but {found}.",
            hint="A job is the class named Command in <installed app>/management/commands/<name>.py.",
        )
