"""`CloudRunJobs`: the management command that is a Cloud Run job."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from functools import cache, partial
from inspect import CO_VARKEYWORDS, getattr_static, isasyncgenfunction, isgeneratorfunction, signature
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from asgiref.sync import sync_to_async
from django.core.management.base import BaseCommand, CommandParser, DjangoHelpFormatter

from cloudrun_jobs import conf, environ
from cloudrun_jobs.argv import reading
from cloudrun_jobs.exceptions import DeclarationError, InvalidArguments, InvalidJob, LockMisused, Verbatim
from cloudrun_jobs.spec import DECLARATIONS, JobSpec, Schedule, declare
from cloudrun_jobs.suggestions import did_you_mean

if TYPE_CHECKING:
    from cloudrun_jobs.execution.active import ActiveRun
    from cloudrun_jobs.locks import Lease
    from cloudrun_jobs.models import Claims
    from cloudrun_jobs.operations import Operation
    from cloudrun_jobs.spec.reservation import At

T = TypeVar("T")

# A child of `multiprocessing` imports this module without `django.setup()`, so nothing it imports may load models:
# what runs or submits a job is imported when it is used.


class CloudRunJobs(BaseCommand):
    """A management command that is a Cloud Run job.

    Declare the job with the attributes below, implement `run()`, and start executions with `delay()`:

        class Command(CloudRunJobs):
            schedule = "0 */12 * * *"
            timeout = 600

            def run(self, *args, **options):
                return {"refreshed": 3}

    An attribute that is not declared gets its value from `CLOUDRUN_JOBS["DEFAULTS"]`, or the default named here.
    """

    #: The name of the Cloud Run Job, or a name by environment: {"production": "nightly-import"}. Of a job that
    #: exists, such as one created at the console, the sync changes only what the class declares. Default: the
    #: command's name with hyphens, and the environment.
    job_name: ClassVar[str | Mapping[str, str] | None]

    #: When Cloud Scheduler starts the job, in its own cron dialect: "0 9 * * 1-5", "every 5 minutes"; or a list of
    #: `Schedule(...)`, each with its own arguments and time zone. Default: None, never.
    schedule: ClassVar[str | Schedule | Sequence[str | Schedule] | None]
    #: The time zone of `schedule`. Default: settings.TIME_ZONE.
    time_zone: ClassVar[str]

    #: What a schedule starts: "job", an execution, or "service", the command inside the web service at
    #: OPTIONS["service_url"], which responds to Cloud Scheduler once the command has ended. Default: "job".
    target: ClassVar[str]

    #: The backend that runs the job, by its alias in CLOUDRUN_JOBS["BACKENDS"]. Default: that of ROUTES, otherwise
    #: the project's.
    backend: ClassVar[str | None]
    #: The queue of a backend that has several, such as Celery's. Default: the first of its OPTIONS["queues"].
    queue: ClassVar[str | None]

    #: How Cloud Scheduler retries a failed delivery, by the field names of its RetryConfig: {"retry_count": 3}.
    #: Durations are seconds or a timedelta. Default: Cloud Scheduler's own.
    retry_config: ClassVar[Mapping[str, int | timedelta] | None]

    #: How long Cloud Scheduler waits for the response to a delivery, in seconds or a timedelta. Default: its own.
    attempt_deadline: ClassVar[int | timedelta | None]

    #: The maximum of concurrent executions of this job. Cloud Run uses the word for concurrent tasks of one
    #: execution; that is `task_parallelism` here. None: no limit. Default: 1.
    parallelism: ClassVar[int | None]

    #: How long one attempt of one task may take, in seconds or as a timedelta. Enforced by Cloud Run only, not
    #: inline or by `manage.py <command>`. Default: 600.
    timeout: ClassVar[int | timedelta]
    #: How often Cloud Run retries a failed task, 0 to 10. Default: 0 (Cloud Run's own is 3).
    max_retries: ClassVar[int]
    #: Containers per execution, each with its own CLOUD_RUN_TASK_INDEX. Outside Cloud Run a run is one task.
    #: Default: 1.
    tasks: ClassVar[int]

    #: The maximum of concurrent tasks of one execution, which Cloud Run calls parallelism.
    #: Default: None, as many as possible.
    task_parallelism: ClassVar[int | None]

    #: What a run does while the same run, the job with the same options, is in progress: "skip" exits with
    #: status 0, "wait" waits, "fail" raises, "allow" runs at once. Default: "skip".
    overlap: ClassVar[str]

    #: The options that identify a run; see also `get_lock_key()`. Default: None, all of them. An option with its
    #: default value is ignored.
    lock_args: ClassVar[Sequence[str] | None]

    #: How long a run waits for a lock, in seconds or as a timedelta; the wait counts towards `timeout`. Then it
    #: exits with status 75, which Cloud Run counts as a failure to retry. Default: 600.
    lock_timeout: ClassVar[float | timedelta]

    #: What holds the locks: "execution", until all of its tasks are done; or "task", each task on its own, which
    #: excludes only the same task of another execution. Default: "execution".
    lock_scope: ClassVar[str]

    #: What a run does if the lock server is unavailable for 30 seconds: "fail" exits with status 75, "run" logs an
    #: error and runs without the locks, for work that may be done twice. Default: "fail".
    on_lock_error: ClassVar[str]

    #: How long the locks are held without a renewal: 120 to 3600 seconds, or a timedelta. A thread renews them six
    #: times in that time, but not while other code holds the GIL: if a job holds it for minutes, as a regular
    #: expression or a big sort can, declare a longer lease. A retry of the same task takes over at once, whatever
    #: the lease; only other executions wait for it, after a final failure. Default: None, the backend's lease.
    lock_lease: ClassVar[float | timedelta | None]

    #: CPUs of a task: 2, "2" or "500m". Default: "1".
    cpu: ClassVar[str | float]
    #: Memory of a task: "512Mi" or "2Gi". Default: "512Mi".
    memory: ClassVar[str]

    #: The e-mail address of the service account that the job runs as. Default: the project's.
    service_account: ClassVar[str | None]
    #: The container image. Default: that of `sync_cloudrun_jobs --image`.
    image: ClassVar[str | None]
    #: What precedes the command's name in the container. If it ends in a Python interpreter, `manage.py` is the
    #: first argument. Default: ["python", "manage.py"].
    entrypoint: ClassVar[Sequence[str]]

    #: The options of an execution that is started without any, such as from the console. Default: none.
    args: ClassVar[Mapping[str, Any]]

    #: Declare `test_mode = False` for a job that can run without side effects. In a run it is True if the body of
    #: the HTTP request has `"test_mode": true`, or the environment variable CLOUDRUN_JOBS_TEST_MODE is "1".
    test_mode: bool

    #: Whether `reduce()` is called even if tasks have failed. The run fails in any case. Default: False.
    reduce_partial: ClassVar[bool] = False

    #: The options that callers of the HTTP API may set. Default: none.
    http_options: ClassVar[Sequence[str]]
    #: The options that take a `SecretRef("name:version")`. Only `run()` gets the value. Requests with a plain
    #: value are rejected; a value on the command line is redacted in the record. In results, errors and logs,
    #: `***` replaces the value, which must have at least six characters. Default: none.
    secret_options: ClassVar[Sequence[str]]

    #: The network: {"network": "default", "subnetwork": "jobs", "egress": "all-traffic"} or {"connector": ...}.
    #: Default: None.
    vpc: ClassVar[Mapping[str, Any] | None]

    #: Cloud SQL instances, mounted in /cloudsql: ["project:region:instance"]. Default: none.
    cloud_sql: ClassVar[Sequence[str]]
    #: Labels of the Cloud Run Job. Default: none.
    labels: ClassVar[Mapping[str, str]]
    #: Environment variables of the container. Default: none.
    env_vars: ClassVar[Mapping[str, str]]

    #: Environment variables filled from Secret Manager: {"API_KEY": "partner-api-key"}, or with a version,
    #: {"API_KEY": "partner-api-key:3"}. Default: none.
    secrets: ClassVar[Mapping[str, str]]

    def run(self, *args: Any, **options: Any) -> Any:
        """Do the work. Return None or a value that Django's JSON encoder takes: dates, decimals and UUIDs too.

        `async def run()` runs in its own event loop. An interrupt of the job cancels its task.
        """
        raise NotImplementedError(f"{type(self).__module__}.Command has no run().")

    # A job may have a method `reduce(self, results)`. It is not defined here: most jobs have none.

    @property
    def failed_tasks(self) -> Sequence[int]:
        """In `reduce()`, the indexes of the failed tasks, whose results are None; see `reduce_partial`."""
        return self._active.failed_tasks if self._active is not None else ()

    def get_lock_key(self, **options: Any) -> Any:
        """Return the JSON value that identifies the same run of this job.

        `options` are the job's own parsed options, without Django's. The default implementation uses those that
        differ from their default; with `lock_args`, only those that it names.
        """
        from cloudrun_jobs.locks.policy import lock_arguments

        return lock_arguments(self.command_name, self.spec.lock_args, options, reading.reading_of(self))

    @property
    def lease(self) -> Lease:
        """The lock this run holds: its `token`, `idempotency_key()` and `transaction()`. Raises `LockMisused`."""
        if self._active is None or not self._active.leases:
            raise LockMisused(f"{self.command_name}: this run holds no lock.")
        return self._active.leases[0]

    def check_lease(self) -> None:
        """Raise `LeaseLost` if the run has lost one of its locks. No I/O; call it in loops.

        Outside the main thread, where no signal handler runs, it also raises `JobInterrupted` after SIGTERM; so
        does `progress()`.
        """
        if self._active is not None:
            self._active.raise_if_interrupted()
            for lease in self._active.leases:
                lease.check()

    def progress(self, done: int, total: int | None = None, text: str = "") -> None:
        """Report the progress of `run()`: `done` of `total`, and the current item in a few words. Use it in loops.

            for number, invoice in enumerate(invoices, start=1):
                self.progress(number, len(invoices), invoice.customer.name)

        A terminal shows it; the run's record and the log get it at most once a second. A total that is too small
        is raised to `done`. Outside a run nothing is shown or written.

        Raises `InvalidProgress` for a fraction or a negative number.
        """
        from cloudrun_jobs.execution.progress import report

        report(self, done, total, text)

    def shard(self, items: Iterable[T], by: Callable[[T], Any] | str | None = None) -> Iterator[T]:
        """Return an iterator over this task's share of a list, range, iterator or queryset.

            for invoice in self.shard(Invoice.objects.filter(sent=False)):
                send(invoice)

        Each item is in the share of exactly one task, for any number of items and tasks. There are two rules:

        - By position, the default: every task and attempt must pass the same items in the same order. If their
          number or a sample of them differs from the first task's, the task and the run fail. A queryset that is
          ordered by its primary key, or not at all, may change: it is split by ranges of that key.
        - `by=`, a function of an item or the name of a field of a queryset: items with the same key go to the
          same task, even if the items change between attempts. The key is text, a number or a UUID.

        With one task, inline, and outside a run, it yields everything.

        Raises `InvalidItems`, or `ShardsDiffer`, which an iterator raises at its end.
        """
        from cloudrun_jobs.execution.sharding.static import shard

        return shard(self, items, by)

    def claim(
        self, items: Iterable[Any], batch: int = 1, lease: float | timedelta = 60, item_retries: int = 2
    ) -> Iterator[Any]:
        """Yield items of a list that all tasks of the run share, each to one task, as the tasks become free.

            for path in self.claim(paths):
                with self.item(path):
                    convert(path)

        The first task to call it writes the list; the other tasks' `items` are ignored. Items are JSON values,
        each at most once in the list. A task takes `batch` items at a time and holds them by a lease of `lease`
        seconds, which is renewed while its process lives. An item is done when the loop continues with the next.
        If a task dies, its item is done again: work is at-least-once, except with `item(atomic=True)`.

        An exception outside `item()` ends the task. Any task retries a failed item, up to `item_retries` times;
        if the last retry fails, the run is FAILED once the remaining items are done. After a `break`, another
        task does the current item. Outside a run, all items are yielded.

        Raises `InvalidItems` for invalid items and arguments, in an event loop, and in a transaction.
        """
        from cloudrun_jobs.execution.sharding import claims

        return claims.claim(self, items, batch=batch, lease=lease, item_retries=item_retries)

    def item(self, item: Any, atomic: bool | str = False) -> AbstractContextManager[None]:
        """Return a context manager around the work on the current item of `claim()`.

        An `Exception` in the block is recorded as a failure of the item, and the loop continues.

        With `atomic=True` the block is a transaction of the default database, which must have the run records.
        The transaction also records that the item is done: the item's writes there happen exactly once. If the
        records and the item's writes are both in another database, pass its alias as `atomic`.
        """
        from cloudrun_jobs.execution.sharding import claims

        return claims.item(self, item, atomic=atomic)

    @property
    def claims(self) -> Claims:
        """The counts of the items of `claim()` in the whole run: `done`, `failed` and `left`.

        It queries the database, and counts the items of other tasks as last saved. Outside a run all are 0. In an
        event loop it raises `InvalidItems`.
        """
        from cloudrun_jobs.execution.sharding import claims

        return claims.claims(self)

    def delay(self, /, *args: Any, idempotency_key: str | None = None, **options: Any) -> Operation:
        """Start an execution and return a handle on it.

        `args` fill the command's positionals, `options` its options, by `dest`. The command's own parser validates
        both, wherever the job will run. In the environments "local" and "test" the job runs now, in this process,
        and its exception reaches the caller. Elsewhere the request is recorded in the caller's transaction, and
        sent to Cloud Run when that commits.

        An `idempotency_key` has at most 200 characters; the same key returns the same run.

        Raises `InvalidArguments` if the command would reject the arguments, or not receive them unchanged; and,
        outside a transaction, a `ServiceError` if Cloud Run did not accept the request.
        """
        from cloudrun_jobs.enqueue import delay

        return delay(self, args, options, key=idempotency_key)

    def reserve(self, at: At, /, *args: Any, **options: Any) -> Operation:
        """Start an execution once, at a future time, and return a handle on it.

        `at` is an aware datetime, a timedelta, or seconds from now, passed by position. Cloud Scheduler starts the
        execution in the first whole minute from `at` on that is at least 30 seconds ahead; Cloud Tasks starts it
        exactly at `at`. Otherwise like `delay()`: in "local" and "test" the job runs now.

        Raises `InvalidArguments` also for a time in the past, or beyond what the service can hold: a year with
        Cloud Scheduler, 30 days with Cloud Tasks.
        """
        from cloudrun_jobs.enqueue import reserve

        return reserve(self, at, args, options)

    def delay_many(self, elements: Iterable[Mapping[str, Any]]) -> Operation:
        """Start one execution with a task for each element, and return a handle on it.

            Command().delay_many([{"partner": 7}, {"partner": 8}])

        An element is a dictionary of options, as `delay()` takes them; at most 10 000 are allowed. Each task has
        the arguments of its element, which are in its record, and acquires the lock of these arguments alone.
        `operation.results()` returns a list of the result or the exception of each element. In "local" and "test"
        the elements run immediately, one after the other, and a failed element does not stop the next ones.

        Raises `InvalidArguments`, with the index of the element, if the command would reject one; then nothing is
        started. Otherwise like `delay()`.
        """
        from cloudrun_jobs.enqueue import delay_many

        return delay_many(self, elements)

    def delay_argv(self, argv: Sequence[str]) -> Operation:
        """Start an execution with command-line arguments, as they follow the command's name; see `delay()`."""
        from cloudrun_jobs.enqueue import delay_argv

        return delay_argv(self, argv)

    def using(
        self,
        *,
        tasks: int | None = None,
        timeout: int | timedelta | None = None,
        env: Mapping[str, str] | None = None,
        **unknown: Any,
    ) -> Self:
        """Return a copy of the command that overrides these values of its job, for the runs that it requests.

            Command().using(tasks=30, timeout=3600).delay(partner=7)

        `tasks` is the number of tasks, `timeout` that of a task in seconds or as a timedelta, and `env` are
        environment variables in addition to those of the job: Cloud Run can override nothing else. Inline, the
        run has one task and no timeout, as ever.

        Raises `InvalidArguments` for a value that the declaration of a job could not have, fewer tasks than
        `task_parallelism`, and a variable that the job has from Secret Manager.
        """
        from cloudrun_jobs.execution.active import ActiveRun
        from cloudrun_jobs.spec.overrides import NO_OVERRIDES

        for name in unknown:
            message = f"{self.command_name}: using(): unknown name {name!r}."
            raise InvalidArguments(message, hint=did_you_mean(name, ("tasks", "timeout", "env")))
        earlier = self._active.overrides if self._active is not None else NO_OVERRIDES
        configured = copy.copy(self)
        configured._active = ActiveRun()
        configured._active.overrides = earlier.updated(self.spec, tasks=tasks, timeout=timeout, env=env)
        return configured

    async def adelay(self, /, *args: Any, **options: Any) -> Operation:
        """Start an execution from async code; see `delay()`."""
        # In the thread of Django's ORM, which the job uses if it runs here.
        return await sync_to_async(self.delay)(*args, **options)

    @property
    def command_name(self) -> str:
        """The name of the command for `manage.py`."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def run_id(self) -> str:
        """The id of the run in progress, as in `JobRun.id`; empty outside of `run()`. Use it to name results."""
        attempt = self._active.attempt if self._active is not None else None
        return str(attempt.run.pk) if attempt is not None else ""

    @property
    def spec(self) -> JobSpec:
        """The validated declarations of the class. Raises `InvalidJob`."""
        return conf.once(type(self), partial(_declared_spec, type(self), self.command_name))

    @property
    def is_enabled(self) -> bool:
        """True if the project has this job; override it to hide the job from sync and from the system checks."""
        return True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _use_entries(self)

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Create the parser, without abbreviations: `--sett=x` must not be taken for `--settings=x`."""
        options = {"allow_abbrev": False, "formatter_class": _HelpFormatter, **kwargs}
        parser = super().create_parser(prog_name, subcommand, **options)
        parser.__class__ = _Parser  # Django creates it.
        reading.remember(self, parser)
        return parser

    def run_from_argv(self, argv: list[str]) -> None:
        """Run the command as `manage.py` does; a task of `delay_many()` has the arguments of its element."""
        if conf.ELEMENTS_VARIABLE in os.environ:
            from cloudrun_jobs.execution.elements import command_line

            argv = command_line(self, argv)
        super().run_from_argv(argv)

    def handle(self, *args: Any, **options: Any) -> str | None:
        """Run the job. Not to be overridden: implement `run()`."""
        from cloudrun_jobs.execution.runner import run_job

        _use_entries(self, [name for name in ("stdout", "stderr") if options.get(name)])
        result = run_job(self, args, options)
        return result if isinstance(result, str) else None

    _active: ActiveRun | None = None


class _Parser(CommandParser):
    """The parser of a job."""

    def error(self, message: str) -> Any:
        """Report the error; of unknown arguments, only the first option's name: a value may be a secret."""
        start, unknown, arguments = message.partition("unrecognized arguments: ")
        if unknown and not start:
            first = arguments.split()[0] if arguments.strip() else ""
            name = first.partition("=")[0] if first.startswith("--") else first[:2]
            message = f"unrecognized arguments: {name if name.startswith('-') else '(not shown)'}"
        return super().error(message)


def _use_entries(command: BaseCommand, given: Collection[str] = ()) -> None:
    """On Cloud Run, turn the command's output into Cloud Logging entries, except for the streams in `given`."""
    if environ.in_cloud():
        from cloudrun_jobs.logs import output

        output.install(command, given)


class _HelpFormatter(DjangoHelpFormatter):
    """Django's formatter with a cached terminal width: argparse creates one formatter per argument."""

    def __init__(self, prog: str, **kwargs: Any) -> None:
        super().__init__(prog, **{"width": _terminal_width(), **kwargs})


@cache
def _terminal_width() -> int:
    return shutil.get_terminal_size().columns - 2  # As in argparse.


def _declared_spec(cls: type[CloudRunJobs], command: str) -> JobSpec:
    if found := list(problems(cls)):
        raise InvalidJob(command, found)
    declared = {name: getattr(cls, name) for name in DECLARATIONS if hasattr(cls, name)}
    return declare(command, declared)


RUN = "a method run(self, *args, **options)"
REDUCE = "a method reduce(self, results)"

# What a command may and may not override: Django calls `execute()`; `CloudRunJobs` itself uses the other names.
OVERRIDABLE = {
    "run",
    "get_lock_key",
    "is_enabled",
    "create_parser",
    "run_from_argv",
    "reduce_partial",
    *DECLARATIONS,
}
RESERVED = {"execute", *(name for name in vars(CloudRunJobs) if not name.startswith("__"))} - OVERRIDABLE


def problems(cls: type[CloudRunJobs]) -> Iterator[DeclarationError]:
    """Yield the faults of a job's class, except for those of its declared values."""
    for base in cls.__mro__[: cls.__mro__.index(CloudRunJobs)]:
        for name in sorted(RESERVED & vars(base).keys()):
            yield _reserved(name, f"{base.__module__}.{base.__qualname__}.{name}")
    yield from _run_problems(cls.run)
    yield from _reduce_problems(cls)
    if (declared := getattr(cls, "test_mode", False)) is not False:
        yield DeclarationError("test_mode", "False, which a test run sets to True", declared)


def _reserved(name: str, where: str) -> DeclarationError:
    if name == "handle":
        expected, check = "only run() overridden", "cloudrun_jobs.E008"
        hint = "Rename handle() to run(): CloudRunJobs implements handle()."
    else:
        expected, check = "a name that CloudRunJobs does not use", "cloudrun_jobs.E016"
        hint = "Rename it, or implement run() in its place." if name == "execute" else "Rename it."
    return DeclarationError(name, expected, Verbatim(where), hint, check)


def _run_problems(run: Callable[..., Any]) -> Iterator[DeclarationError]:
    expected, got, hint = "an ordinary method or a coroutine function", "", ""
    if run is CloudRunJobs.run:
        expected, got = RUN, "none"
    elif isgeneratorfunction(run) or isasyncgenfunction(run):
        got, hint = "a generator, which is never iterated", "Iterate over it in run()."
    elif not _takes_options(run):
        expected, got = RUN, f"run{signature(run)}"
    if got:
        yield DeclarationError("run", expected, Verbatim(got), hint, id="cloudrun_jobs.E011")


def _reduce_problems(cls: type[CloudRunJobs]) -> Iterator[DeclarationError]:
    check = "cloudrun_jobs.E025"
    if not isinstance(cls.reduce_partial, bool):
        yield DeclarationError("reduce_partial", "True or False", cls.reduce_partial, id=check)
    reduce: Any = getattr(cls, "reduce", None)
    if reduce is None:
        if cls.reduce_partial is True:
            yield DeclarationError("reduce_partial", REDUCE, Verbatim("none"), id=check)
        return
    got = hint = ""
    if not callable(reduce):
        got = repr(reduce)
    elif isgeneratorfunction(reduce) or isasyncgenfunction(reduce):
        got, hint = "a generator, which is never iterated", "Return the value."
    elif not _takes_results(cls, reduce):
        got = f"reduce{signature(reduce)}"
    if got:
        yield DeclarationError("reduce", REDUCE, Verbatim(got), hint, id=check)


def _takes_results(cls: type[CloudRunJobs], reduce: Callable[..., Any]) -> bool:
    """Return True if the command can call the method with the results."""
    is_bound = isinstance(getattr_static(cls, "reduce"), staticmethod | classmethod)
    try:
        signature(reduce).bind(*(["results"] if is_bound else ["self", "results"]))
    except TypeError:
        return False
    return True


def _takes_options(function: Callable[..., Any]) -> bool:
    code = getattr(function, "__code__", None)  # A callable without one cannot be inspected, and is accepted.
    return code is None or bool(code.co_flags & CO_VARKEYWORDS)
