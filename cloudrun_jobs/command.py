"""`CloudRunJobs`: the management command that is a Cloud Run job."""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

from asgiref.sync import sync_to_async
from django.core.management import get_commands
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.serializers.json import DjangoJSONEncoder

from . import conf, context, guard
from .exceptions import (
    InvalidArguments,
    InvalidJob,
    InvalidResult,
    JobFailed,
    LeaseLost,
    LockError,
    LockMisused,
    Problem,
)
from .shield import exposed
from .signals import job_delayed, job_finished, job_started
from .spec import DECLARATIONS, JobSpec, declare

if TYPE_CHECKING:
    from .backends import Request
    from .locks import Lease
    from .operations import Operation

# Whatever sends a job is imported when it is used: a process that runs one, in a container, mostly sends none.

COMMANDS = ".management.commands."
NOT_STARTED = 75  # EX_TEMPFAIL: nothing is wrong with the job; try again.


class CloudRunJobs(BaseCommand):
    """A management command that is a Cloud Run job.

    Declare what the job is with the attributes below, implement `run()`, and call the job with `delay()`:

        class Command(CloudRunJobs):
            schedule = "0 */12 * * *"
            timeout = 600

            def run(self, *args, **options):
                return {"refreshed": 3}

    An attribute that is not declared takes its value from `CLOUDRUN_JOBS["DEFAULTS"]`, or the one named here.
    """

    # When it runs by itself, in Cloud Scheduler's dialect: "0 9 * * 1-5", "every 5 minutes". Default: never.
    schedule: ClassVar[str | None]

    # The time zone of `schedule`. Default: settings.TIME_ZONE.
    time_zone: ClassVar[str]

    # Executions of this job that may run at once; None: any number. Not what Cloud Run calls parallelism,
    # which is `task_parallelism` here. Default: 1.
    parallelism: ClassVar[int | None]

    # How long one attempt of one task may take, in seconds or as a timedelta. Default: 600.
    timeout: ClassVar[int | timedelta]

    # How often Cloud Run tries a failed task again, 0 to 10. Default: 0 (Cloud Run's own is 3).
    max_retries: ClassVar[int]

    # Containers per execution, each with its own CLOUD_RUN_TASK_INDEX. Default: 1.
    tasks: ClassVar[int]

    # Tasks of one execution that run at once: what Cloud Run calls parallelism. Default: None, as many as can.
    task_parallelism: ClassVar[int | None]

    # What a run does while the same run, the job with the same options, is under way: "skip" ends at once with
    # status 0, "wait" waits, "fail" raises, "allow" runs beside it. Default: "skip".
    overlap: ClassVar[str]

    # The options that make two runs the same; see also `get_lock_key()`. Default: None, all of them.
    lock_args: ClassVar[Sequence[str] | None]

    # How long a run waits for a lock, in seconds or as a timedelta; the wait is part of its `timeout`. Then it
    # ends with status 75, which Cloud Run counts as a failure to retry. Default: 600.
    lock_timeout: ClassVar[float | timedelta]

    # Whether an execution holds the locks until all of its tasks are done, "execution", or each task takes locks
    # that only the same task of another execution wants, "task". Default: "execution".
    lock_scope: ClassVar[str]

    # What a run does when the server that keeps the locks is away for half a minute: "fail" ends with status 75,
    # "run" logs an error and runs without them, for work that may be done twice. Default: "fail".
    on_backend_error: ClassVar[str]

    # What renews the locks meanwhile: a "thread", or a "process" of its own for code that keeps Python's threads
    # from running for a minute, as a regular expression or a big sort can. Default: "thread".
    heartbeat: ClassVar[str]

    # CPUs and memory of a task: "2" or "500m", "512Mi" or "2Gi". Default: "1" and "512Mi".
    cpu: ClassVar[str | float]
    memory: ClassVar[str]

    # The e-mail address of the service account it runs as. Default: the project's.
    service_account: ClassVar[str | None]

    # Variables of its environment: plain ones, and ones filled from Secret Manager, as
    # {"API_KEY": "partner-api-key"} or, with a version, {"API_KEY": "partner-api-key:3"}. Default: none.
    env_vars: ClassVar[Mapping[str, str]]
    secrets: ClassVar[Mapping[str, str]]

    def run(self, *args: Any, **options: Any) -> Any:
        """Do the work. Return None or something JSON can say; Django's encoder takes dates, decimals, UUIDs."""
        raise NotImplementedError(f"{type(self).__module__}.Command has no run().")

    def get_lock_key(self, **options: Any) -> Any:
        """Return what makes two runs of this job the same, as something JSON can say.

        `options` are the job's own, parsed, without Django's. Here: those that `lock_args` names, or all.
        """
        return guard.select(self.command_name, self.spec.lock_args, options)

    @property
    def lease(self) -> Lease:
        """The lock this run holds: its `token`, `idempotency_key()` and `transaction()`."""
        if not self._leases:
            raise LockMisused(f"{self.command_name}: this run holds no lock.")
        return self._leases[0]

    def check_lease(self) -> None:
        """Raise `LeaseLost` if a lock of this run is no longer its own. Costs nothing; call it in loops."""
        guard.check(self._leases)

    def delay(self, *args: Any, **options: Any) -> Operation:
        """Start an execution and return a handle on it.

        `args` fill the command's positionals, `options` its options, by `dest`. Both take the way through the
        command's own parser, wherever the job will run. In the environments "local" and "test" the job runs now,
        in this process; what it raises reaches the caller. Elsewhere Cloud Run starts it, with the same arguments.

        Raises `InvalidArguments` for what the command would not take or could not get unchanged, and one of
        the `ServiceError`s if Cloud Run did not take the request.
        """
        from . import backends

        request = self._request(args, options)
        operation = backends.current().start(request)
        job_delayed.send_robust(type(self), spec=request.spec, operation=operation)
        return operation

    async def adelay(self, *args: Any, **options: Any) -> Operation:
        """Start an execution from async code; see `delay()`."""
        # In the thread of Django's ORM, which the job uses if it runs here.
        return await sync_to_async(self.delay)(*args, **options)

    @property
    def command_name(self) -> str:
        """The name `manage.py` knows it by."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def spec(self) -> JobSpec:
        """What the class declares, checked; raises `InvalidJob`."""
        if found := list(problems(type(self))):
            raise InvalidJob(self.command_name, found)
        cls = type(self)
        return declare(
            self.command_name, {name: getattr(cls, name) for name in DECLARATIONS if hasattr(cls, name)}
        )

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Create the parser, without abbreviations: `--sett=x` must not be taken for `--settings=x`."""
        return super().create_parser(prog_name, subcommand, **{"allow_abbrev": False, **kwargs})

    def handle(self, *args: Any, **options: Any) -> str | None:
        """Run the job. Not to be overridden: implement `run()`."""
        self._result = self._perform(args, options)
        return self._result if isinstance(self._result, str) else None

    _result: Any = None
    _leases: Sequence[Lease] = ()

    def _perform(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        spec = self.spec
        with self._told_to_the_shell(), guard.locked(self, spec, {**options, "args": args}) as leases:
            if leases is None:
                return None
            self._leases = leases
            return self._work(spec, args, options)

    @contextmanager
    def _told_to_the_shell(self) -> Iterator[None]:
        """Where `manage.py` runs this, say in a line and a status of its own that a lock was not to be had."""
        try:
            yield
        except (LockError, LeaseLost) as error:
            if not self._called_from_command_line:  # type: ignore[attr-defined]  # set by BaseCommand
                raise
            raise CommandError(str(error), returncode=NOT_STARTED) from error

    def _work(self, spec: JobSpec, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        task, started = context.current(), time.monotonic()
        error: BaseException | None = None
        job_started.send_robust(type(self), spec=spec, task=task)
        try:
            return _in_json(self.command_name, exposed(partial(self.run, *args, **options)))
        except BaseException as raised:
            error = _kept_failing(raised)
            raise
        finally:
            seconds = time.monotonic() - started
            job_finished.send_robust(type(self), spec=spec, task=task, seconds=seconds, error=error)

    def _request(self, args: tuple[Any, ...], options: dict[str, Any]) -> Request:
        from . import argv as arguments
        from .backends import Request

        spec, name, run_id = self.spec, self.command_name, str(uuid4())
        self._check_that_manage_finds_it()
        parser = self._parser()
        try:
            argv = [name, *arguments.serialise(parser, args, options)]
            guard.check_arguments(self, spec, arguments.parse(parser, argv[1:]))
            arguments.check_limits(argv, {**spec.env_vars, conf.RUN_ID_VARIABLE: run_id})
        except InvalidArguments as error:
            raise InvalidArguments(f"{name}: {error.args[0]}", hint=error.hint) from None
        work = partial(self._run_here, argv[1:])
        return Request(spec=spec, argv=tuple(argv), run_id=run_id, work=work)

    def _run_here(self, argv: list[str]) -> Any:
        """Run the job in this process and return its result, by the road `manage.py` takes."""
        from .argv import parse

        worker = copy.copy(self)
        options = parse(self._parser(), argv)
        if "skip_checks" in options:
            options["skip_checks"] = True  # As call_command does: the caller's process has been checked.
        try:
            worker.execute(*options.pop("args", ()), **options)
        except SystemExit as leaving:
            if code := exit_status(leaving.code):
                words = f"{self.command_name}: run() left by sys.exit() with {leaving.code!r}."
                raise JobFailed(words, code=code) from leaving
        return worker._result

    def _parser(self) -> CommandParser:
        """The command's parser, raising its errors even where `manage.py` runs this very command."""
        caller = copy.copy(self)
        caller._called_from_command_line = False  # type: ignore[attr-defined]  # set by BaseCommand
        return caller.create_parser("manage.py", self.command_name)

    def _check_that_manage_finds_it(self) -> None:
        cls, name = type(self), self.command_name
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


def problems(cls: type[CloudRunJobs]) -> Iterator[Problem]:
    """Yield what is wrong with how a class implements a job, its declared values apart."""
    if cls.handle is not CloudRunJobs.handle:
        hint = "Rename handle() to run(): handle() does what must be done around it."
        yield Problem(
            attribute="handle",
            expected="only run() overridden",
            got=_where(cls.handle),
            hint=hint,
            id="cloudrun_jobs.E008",
        )
    if cls.run is CloudRunJobs.run:
        yield Problem(
            attribute="run",
            expected="a method run(self, *args, **options)",
            got=None,
            id="cloudrun_jobs.E011",
        )
    if iscoroutinefunction(cls.run):
        hint = "Call the coroutine in it with asgiref.sync.async_to_sync."
        yield Problem(
            attribute="run",
            expected="an ordinary method",
            got=_where(cls.run),
            hint=hint,
            id="cloudrun_jobs.E011",
        )


def _where(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def exit_status(code: object) -> int:
    """Return the status a process ends with after `sys.exit(code)`, and 1 where that byte would lie.

    A status is one byte, so `sys.exit(256)` ends as 0, and Cloud Run would show a success.
    """
    if code is None:
        return 0
    return (code & 0xFF or int(code != 0)) if isinstance(code, int) else 1


def _kept_failing(error: BaseException) -> BaseException | None:
    """Give an error that would end the process with status 0 another; return None for a success."""
    if isinstance(error, SystemExit):
        if not exit_status(error.code):
            return None
        error.code = exit_status(error.code) if isinstance(error.code, int) else error.code
    if isinstance(error, CommandError):
        error.returncode = exit_status(error.returncode) or 1
    return error


def _in_json(command: str, result: Any) -> Any:
    """Return what the result becomes on its way through JSON."""
    try:
        return json.loads(json.dumps(result, cls=DjangoJSONEncoder, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidResult(
            f"{command}: run() returned what JSON cannot say: {error}.",
            hint="Return None, text, numbers, dates, or lists and dictionaries of them.",
        ) from error
