"""`CloudRunJobs`: the management command that is a Cloud Run job."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import cache
from inspect import CO_VARKEYWORDS, isasyncgenfunction, iscoroutinefunction, isgeneratorfunction, signature
from typing import TYPE_CHECKING, Any, ClassVar

from asgiref.sync import sync_to_async
from django.core.management.base import BaseCommand, CommandParser, DjangoHelpFormatter

from cloudrun_jobs.exceptions import DeclarationError, InvalidJob, LockMisused, Verbatim
from cloudrun_jobs.spec import DECLARATIONS, JobSpec, Schedule, declare

if TYPE_CHECKING:
    from cloudrun_jobs.execution.active import ActiveRun
    from cloudrun_jobs.locks import Lease
    from cloudrun_jobs.operations import Operation
    from cloudrun_jobs.spec.reservation import At

# Everything that runs or submits a job is imported when it is used: this module is imported before the app registry
# is ready, by the children of `multiprocessing` for one, so neither it nor its imports may load models.


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

    # When it runs by itself, in Cloud Scheduler's dialect: "0 9 * * 1-5", "every 5 minutes"; or a list of
    # `Schedule(...)`, each with arguments and a time zone of its own. Default: never.
    schedule: ClassVar[str | Schedule | Sequence[str | Schedule] | None]

    # The time zone of `schedule`. Default: settings.TIME_ZONE.
    time_zone: ClassVar[str]

    # What a schedule starts: an execution of the job, "job", or the command inside the web service at
    # OPTIONS["service_url"], "service". This version makes the entry; the service's side is yet to come.
    target: ClassVar[str]

    # How often and for how long Cloud Scheduler tries again to deliver, as {"retry_count": 3}, by the names of its
    # RetryConfig, durations in seconds or as timedelta; and how long it waits for an answer. Default: its own.
    retry_config: ClassVar[Mapping[str, int | timedelta] | None]
    attempt_deadline: ClassVar[int | timedelta | None]

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
    on_lock_error: ClassVar[str]

    #: How long the locks are held without a renewal: 120 to 3600 seconds, or a timedelta. A thread renews them six
    #: times in that time, and cannot while code holds the GIL: a job that does so for minutes, as a regular
    #: expression or a big sort can, declares a longer lease. A retry of the same task takes over at once, whatever
    #: the lease; only other executions wait for it after a final failure. Default: None, the lock backend's lease.
    lock_lease: ClassVar[float | timedelta | None]

    # CPUs and memory of a task: "2" or "500m", "512Mi" or "2Gi". Default: "1" and "512Mi".
    cpu: ClassVar[str | float]
    memory: ClassVar[str]

    # The e-mail address of the service account it runs as. Default: the project's.
    service_account: ClassVar[str | None]

    # The container: its image, and what stands before the command's name in it. Defaults: that of
    # `sync_cloudrun_jobs --image`, and ["python", "manage.py"].
    image: ClassVar[str | None]
    entrypoint: ClassVar[Sequence[str]]

    # The options of an execution that is given none, such as one started at the console. Default: none.
    args: ClassVar[Mapping[str, Any]]

    # What it is connected to: {"network": "default", "subnetwork": "jobs", "egress": "all-traffic"} or
    # {"connector": ...}; Cloud SQL instances as ["project:region:instance"], mounted in /cloudsql. Default: none.
    vpc: ClassVar[Mapping[str, Any] | None]
    cloud_sql: ClassVar[Sequence[str]]

    # Labels of the Cloud Run Job. Default: none.
    labels: ClassVar[Mapping[str, str]]

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
        from cloudrun_jobs.locks.policy import lock_arguments

        return lock_arguments(self.command_name, self.spec.lock_args, options)

    @property
    def lease(self) -> Lease:
        """The lock this run holds: its `token`, `idempotency_key()` and `transaction()`."""
        if self._active is None or not self._active.leases:
            raise LockMisused(f"{self.command_name}: this run holds no lock.")
        return self._active.leases[0]

    def check_lease(self) -> None:
        """Raise `LeaseLost` if the run has lost one of its locks. Costs nothing; call it in loops."""
        for lease in self._active.leases if self._active else ():
            lease.check()

    def progress(self, done: int, total: int | None = None, text: str = "") -> None:
        """Tell how far `run()` is: `done` of `total`, and in a few words what it is at. Call it in loops.

            for number, invoice in enumerate(invoices, start=1):
                self.progress(number, len(invoices), invoice.customer.name)

        It is shown on a terminal, and at most once a second written to the run's record and the log. A total
        that turns out too small grows with `done`. Outside of a run nothing is shown or written.

        Raises `InvalidProgress` for what is no count: a fraction, or a negative number.
        """
        from cloudrun_jobs.execution.progress import report

        report(self, done, total, text)

    def delay(self, *args: Any, idempotency_key: str | None = None, **options: Any) -> Operation:
        """Start an execution and return a handle on it.

        `args` fill the command's positionals, `options` its options, by `dest`. Both take the way through the
        command's own parser, wherever the job will run. In the environments "local" and "test" the job runs now,
        in this process; what it raises reaches the caller. Elsewhere the request is recorded in the caller's
        transaction, and Cloud Run is asked to run the job, with the same arguments, when that is committed.

        With an `idempotency_key`, of at most 200 characters, the same key gives the same run.

        Raises `InvalidArguments` for what the command would not take or could not get unchanged, and, outside of
        a transaction, one of the `ServiceError`s if Cloud Run did not take the request.
        """
        from cloudrun_jobs.enqueue import delay

        return delay(self, args, options, key=idempotency_key)

    def reserve(self, at: At, *args: Any, **options: Any) -> Operation:
        """Start an execution once, at a time to come, and return a handle on it.

        `at` is an aware datetime, a timedelta, or seconds from now. Cloud Scheduler starts it in the first whole
        minute from then on that is at least half a minute ahead, Cloud Tasks at that very time.
        The rest is as for `delay()`: in "local" and "test" the job runs now.

        Raises `InvalidArguments` for a time that is past, too, or further away than can be reserved: the next time
        of this date, or, with Cloud Tasks, 30 days.
        """
        from cloudrun_jobs.enqueue import reserve

        return reserve(self, at, args, options)

    def delay_argv(self, argv: Sequence[str]) -> Operation:
        """Start an execution with arguments as they follow the command's name; see `delay()`."""
        from cloudrun_jobs.enqueue import delay_argv

        return delay_argv(self, argv)

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
        return declare(self.command_name, self._declared())

    @property
    def is_enabled(self) -> bool:
        """Whether the project has this job: what is not wanted is neither synced nor checked."""
        return True

    def _declared(self) -> dict[str, Any]:
        cls = type(self)
        return {name: getattr(cls, name) for name in DECLARATIONS if hasattr(cls, name)}

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Create the parser, without abbreviations: `--sett=x` must not be taken for `--settings=x`."""
        options = {"allow_abbrev": False, "formatter_class": _HelpFormatter, **kwargs}
        return super().create_parser(prog_name, subcommand, **options)

    def handle(self, *args: Any, **options: Any) -> str | None:
        """Run the job. Not to be overridden: implement `run()`."""
        from cloudrun_jobs.execution.runner import run_job

        result = run_job(self, args, options)
        return result if isinstance(result, str) else None

    _active: ActiveRun | None = None


class _HelpFormatter(DjangoHelpFormatter):
    """Django's formatter, which asks for the terminal's width once: argparse makes one for each argument added."""

    def __init__(self, prog: str, **kwargs: Any) -> None:
        super().__init__(prog, **{"width": _terminal_width(), **kwargs})


@cache
def _terminal_width() -> int:
    return shutil.get_terminal_size().columns - 2  # As argparse has it.


RUN = "a method run(self, *args, **options)"


def problems(cls: type[CloudRunJobs]) -> Iterator[DeclarationError]:
    """Yield what is wrong with how a class implements a job, its declared values apart."""
    if cls.handle is not CloudRunJobs.handle:
        hint = "Rename handle() to run(): handle() does what must be done around it."
        yield DeclarationError(
            attribute="handle",
            expected="only run() overridden",
            got=_where(cls.handle),
            hint=hint,
            id="cloudrun_jobs.E008",
        )
    yield from _run_problems(cls.run)


def _run_problems(run: Callable[..., Any]) -> Iterator[DeclarationError]:
    expected, got, hint = "an ordinary method", "", ""
    if run is CloudRunJobs.run:
        expected, got = RUN, "none"
    elif iscoroutinefunction(run):
        got, hint = "a coroutine function", "Call the coroutine in it with asgiref.sync.async_to_sync."
    elif isgeneratorfunction(run) or isasyncgenfunction(run):
        got, hint = "a generator, which nobody would loop over", "Loop over it in run()."
    elif not _takes_options(run):
        expected, got = RUN, f"run{signature(run)}"
    if got:
        yield DeclarationError(
            attribute="run", expected=expected, got=Verbatim(got), hint=hint, id="cloudrun_jobs.E011"
        )


def _takes_options(function: Callable[..., Any]) -> bool:
    code = getattr(function, "__code__", None)  # Of something that is no plain function nothing is known.
    return code is None or bool(code.co_flags & CO_VARKEYWORDS)


def _where(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"
