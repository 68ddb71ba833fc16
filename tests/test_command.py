"""`CloudRunJobs` inline: the job runs in the caller's process, by the road it would take in a container."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from decimal import Decimal
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import SynchronousOnlyOperation
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test import override_settings

from cloudrun_jobs import CloudRunJobs, InvalidArguments, JobFailed, MockOperation, Operation
from cloudrun_jobs.exceptions import InvalidJob, InvalidResult
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.registry import find_jobs
from cloudrun_jobs.signals import job_delayed, job_finished, job_started
from tests.jobs.base import NightlyJob
from tests.jobs.management.commands import echo, everything, nightly, outcome

LOCAL_LOCKS = "cloudrun_jobs.locks.local.LocalLocks"
RUN_ID = "7d0a6f1e-5f2f-4b3c-9a51-0c6f3f0f8f11"


def test_delay_runs_the_job_and_returns_it_finished() -> None:
    """In the environment "test" the work is done when delay() returns."""
    operation = echo.Command().delay("a", partner=7)

    assert isinstance(operation, MockOperation)
    assert operation.done()
    assert operation.result() == {"words": ["a"], "partner": 7, "note": None}


def test_adelay_runs_the_job_too() -> None:
    """Async code awaits adelay()."""
    assert async_to_sync(echo.Command().adelay)(partner="7").result()["partner"] == 7


def test_run_id_is_known_during_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """run_id is the id of the run during run(), and empty before and after."""
    monkeypatch.setattr(echo.Command, "run", lambda self, *args, **options: self.run_id)
    job = echo.Command()
    operation = job.delay()

    assert operation.result() == operation.run_id
    assert job.run_id == echo.Command().run_id == ""


# Names of parameters on the road from delay() to run().
PARAMETERS = ["at", "job", "spec", "key", "options", "argv", "request", "worker", "timeout", "trigger", "command"]


@pytest.mark.parametrize("name", PARAMETERS)
def test_options_may_have_the_name_of_any_parameter(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """No parameter of delay(), adelay() or reserve() hides an option of the command."""
    monkeypatch.setattr(echo.Command, "add_arguments", lambda self, parser: parser.add_argument(f"--{name}"))
    monkeypatch.setattr(echo.Command, "run", lambda self, *args, **options: options[name])
    options: dict[str, Any] = {name: "noon"}

    assert echo.Command().delay(**options).result() == "noon"
    assert async_to_sync(echo.Command().adelay)(**options).result() == "noon"
    assert echo.Command().reserve(3600, **options).result() == "noon"


@pytest.mark.parametrize("method", ["delay", "reserve"])
def test_self_is_an_unknown_option(method: str) -> None:
    """An option that the command does not have is InvalidArguments, whatever its name."""
    options: dict[str, Any] = {"self": 1}

    with pytest.raises(InvalidArguments, match="self"):
        getattr(echo.Command(), method)(*[3600] * (method == "reserve"), **options)


def test_values_go_through_the_parser_inline_too() -> None:
    """A number for a text option arrives as text, a date as what the option's type returns."""
    result = everything.Command().delay("x", day=date(2026, 1, 2), tag=["-a"]).result()

    assert (result["day"], result["tag"]) == ("2026-01-02", ["-a"])


@pytest.mark.parametrize(
    ("value", "json"),
    [
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00Z"),
        (Decimal("1.50"), "1.50"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ((1, 2), [1, 2]),
        ({1: date(2026, 1, 2)}, {"1": "2026-01-02"}),
        (None, None),
    ],
)
def test_result_has_its_json_form(monkeypatch: pytest.MonkeyPatch, value: Any, json: Any) -> None:
    """What run() returns comes back in its JSON form, as from the cloud."""
    monkeypatch.setitem(outcome.ENDINGS, "none", lambda: value)

    assert outcome.Command().delay("none").result() == json


@pytest.mark.parametrize("ending", ["set", "nan"])
def test_a_result_that_json_cannot_say_is_an_error(ending: str) -> None:
    """A set, or NaN, is refused with what would do instead."""
    with pytest.raises(
        InvalidResult, match=r"outcome: run\(\) returned a value that JSON cannot express.*Return None, text"
    ):
        outcome.Command().delay(ending)


def test_exception_is_not_wrapped() -> None:
    """An inline job's error is not wrapped."""
    with pytest.raises(ZeroDivisionError):
        outcome.Command().delay("error")
    with pytest.raises(CommandError, match="bad input"):
        outcome.Command().delay("command error")


@pytest.mark.parametrize(("ending", "code"), [("exit", 3), ("exit 256", 1), ("exit text", 1)])
def test_leaving_by_sys_exit_is_a_failure(ending: str, code: int) -> None:
    """sys.exit(n) with any n but 0 is never a successful operation, nor the end of the caller."""
    with pytest.raises(JobFailed, match=r"outcome: run\(\) called sys\.exit\(") as failure:
        outcome.Command().delay(ending)

    assert failure.value.code == code


def test_leaving_by_sys_exit_0_is_a_success() -> None:
    """sys.exit(0) is a success without a result."""
    assert outcome.Command().delay("exit 0").result() is None


def test_call_command_and_a_text_result() -> None:
    """A job is an ordinary command: call_command runs it, and a text result is printed."""
    stdout = StringIO()

    assert call_command("outcome", "text", stdout=stdout) == "all done"
    assert stdout.getvalue() == "all done\n"


def test_result_that_is_no_text_is_not_printed() -> None:
    """Django prints text only; a dictionary is the operation's result and no output."""
    stdout = StringIO()
    call_command("echo", stdout=stdout)

    assert stdout.getvalue() == ""


def test_delay_inside_of_a_command_line_run_does_not_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job started by manage.py that calls delay() with invalid arguments gets an error, not SystemExit."""
    caught: list[Exception] = []

    def run(self: CloudRunJobs, *args: Any, **options: Any) -> None:
        try:
            self.delay(partner="x")
        except InvalidArguments as error:
            caught.append(error)

    monkeypatch.setattr(echo.Command, "run", run)
    echo.Command().run_from_argv(["manage.py", "echo", "--skip-checks"])

    assert "invalid int value: 'x'" in str(caught[0])


def test_changed_choices_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """An argument that an earlier parser would refuse is accepted if the current one accepts it."""

    def add_arguments(self: CloudRunJobs, parser: Any) -> None:
        parser.add_argument("ending", choices=choices)

    monkeypatch.setattr(outcome.Command, "add_arguments", add_arguments)
    choices = ["text"]
    outcome.Command().delay("text")
    choices = ["none"]

    assert outcome.Command().delay("none").result() is None


def test_inline_run_skips_the_system_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller's process was checked when it started."""
    monkeypatch.setattr(echo.Command, "check", lambda self, **kwargs: pytest.fail("checked"))

    assert echo.Command().delay().done()


@pytest.mark.usefixtures("transactional_db")
def test_one_instance_serves_many_threads() -> None:
    """Each call of delay() has its own result, even if threads share the command."""
    command = echo.Command()

    def delay(number: int) -> Operation:
        try:
            return command.delay(partner=number)
        finally:
            connection.close()  # This thread's.

    with ThreadPoolExecutor(8) as pool:
        operations = list(pool.map(delay, range(50)))

    assert [operation.result()["partner"] for operation in operations] == list(range(50))


def test_class_that_manage_py_would_not_run_is_refused() -> None:
    """A container runs the class that manage.py finds; any other is refused with the rule."""

    class Other(echo.Command):
        pass

    with pytest.raises(InvalidArguments, match=r"would not run this class.*A job is the class named Command in"):
        Other().delay()


def test_second_class_of_the_module_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the class named Command of its module is run by manage.py."""

    class Second(CloudRunJobs):
        __module__ = echo.__name__

        def run(self, *args: Any, **options: Any) -> None: ...

    monkeypatch.setattr(echo, "Second", Second, raising=False)

    with pytest.raises(InvalidArguments, match=r"but tests\.jobs\.management\.commands\.echo\.Command"):
        Second().delay()


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"handle": lambda self: None}, "handle: expected only run() overridden"),
        ({"run": CloudRunJobs.run}, "run: expected a method run(self, *args, **options)"),
        ({"run": lambda self: None}, "run: expected a method run(self, *args, **options), got run(self)."),
        (
            {"run": lambda self, **options: (yield)},
            "run: expected an ordinary method or a coroutine function, got a generator",
        ),
        ({"timeout": 0}, "timeout: expected whole seconds"),
    ],
)
def test_invalid_class_is_refused_by_delay(
    monkeypatch: pytest.MonkeyPatch, attributes: dict[str, Any], message: str
) -> None:
    """delay() refuses what a system check reports."""
    for name, value in attributes.items():
        monkeypatch.setattr(echo.Command, name, value, raising=False)

    with pytest.raises(InvalidJob) as refusal:
        echo.Command().delay()

    assert str(refusal.value).startswith("echo: ")
    assert message in str(refusal.value)


def test_base_class_itself_has_no_run() -> None:
    """A class without run() raises NotImplementedError."""
    with pytest.raises(NotImplementedError, match=r"has no run\(\)"):
        CloudRunJobs().run()


def test_abbreviated_options_are_refused() -> None:
    """`--pyth=x` is not taken for `--pythonpath=x` by a job's parser."""
    with pytest.raises(CommandError, match=r"unrecognized arguments: --pyth$"):
        echo.Command().create_parser("manage.py", "echo").parse_args(["--pyth=x"])


def test_signals_of_a_run() -> None:
    """Request, start and end are signals; an exception of a receiver has no effect."""
    sent: list[tuple[str, dict[str, Any]]] = []

    def receiver(sender: type, signal: Any, **kwargs: Any) -> None:
        sent.append((next(name for name, s in names.items() if s is signal), kwargs))
        raise RuntimeError

    names = {"delayed": job_delayed, "started": job_started, "finished": job_finished}
    for signal in names.values():
        signal.connect(receiver, sender=outcome.Command)
    try:
        operation = outcome.Command().delay("none")
        with pytest.raises(ZeroDivisionError):
            outcome.Command().delay("error")
    finally:
        for signal in names.values():
            signal.disconnect(receiver, sender=outcome.Command)

    assert [name for name, _ in sent] == ["started", "finished", "delayed", "started", "finished"]
    assert sent[1][1]["error"] is None
    assert sent[2][1]["operation"] is operation
    assert isinstance(sent[4][1]["error"], ZeroDivisionError)


def test_signals_carry_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container the signals carry the task of Cloud Run's environment."""
    for name, value in {
        "CLOUD_RUN_JOB": "echo-production",
        "CLOUD_RUN_EXECUTION": "echo-production-x7k2p",
        "CLOUD_RUN_TASK_INDEX": "2",
        "CLOUD_RUN_TASK_ATTEMPT": "1",
        "CLOUD_RUN_TASK_COUNT": "3",
        "CLOUDRUN_JOBS_RUN_ID": RUN_ID,
    }.items():
        monkeypatch.setenv(name, value)
    tasks: list[Any] = []

    def receiver(task: Any, **kwargs: Any) -> None:
        tasks.append(task)

    job_started.connect(receiver)
    try:
        call_command("outcome", "none")
    finally:
        job_started.disconnect(receiver)

    task = tasks[0]
    assert (task.job, task.execution, task.run_id) == ("echo-production", "echo-production-x7k2p", RUN_ID)
    assert (task.index, task.attempt, task.count) == (2, 1, 3)


@override_settings(CLOUDRUN_JOBS={"ENVIRONMENT": "production", "LOCKS": {"BACKEND": LOCAL_LOCKS}})
def test_manage_py_runs_the_job_here_in_every_environment() -> None:
    """Called as a command, a job always runs in this process, without a backend."""
    assert call_command("outcome", "text", stdout=StringIO()) == "all done"


def test_package_names_are_lazy_and_complete() -> None:
    """`from cloudrun_jobs import X` works for each public name, and no other."""
    import cloudrun_jobs

    assert sorted(cloudrun_jobs._MODULES) == cloudrun_jobs.__all__ == dir(cloudrun_jobs)
    assert [getattr(cloudrun_jobs, name).__name__ for name in cloudrun_jobs.__all__] == cloudrun_jobs.__all__
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        cloudrun_jobs.Nothing  # noqa: B018
    assert sys.modules["cloudrun_jobs"] is cloudrun_jobs


def test_job_inherits_from_an_abstract_class() -> None:
    """A job inherits declarations and run(), and only the command itself is a job."""
    command = nightly.Command()

    assert (command.spec.schedule, command.spec.max_retries) == ("0 3 * * *", 1)
    assert command.delay().result() == "worked"
    assert [name for name, job in find_jobs().jobs.items() if isinstance(job, NightlyJob)] == ["nightly"]


def test_abstract_class_is_refused_by_delay() -> None:
    """A class that manage.py does not find is no job."""
    with pytest.raises(InvalidArguments, match="no command of this name"):
        NightlyJob().delay()


@pytest.mark.parametrize(
    ("call", "alternative"),
    [
        (lambda: echo.Command().delay(partner=7), r"`await` adelay\(\)"),
        (lambda: echo.Command().delay(partner=7, idempotency_key="once"), r"`await` adelay\(\)"),
        (lambda: echo.Command().delay_argv(["--partner=7"]), r"adelay\(\), or sync_to_async\(command\.delay_argv"),
        (lambda: echo.Command().reserve(3600), r"sync_to_async\(command\.reserve"),
    ],
    ids=["delay", "with a key", "delay_argv", "reserve"],
)
def test_async_code_is_pointed_to_adelay(call: Callable[[], Operation], alternative: str) -> None:
    """In a running event loop the error names what to call, and nothing is recorded."""

    async def view() -> Operation:
        return call()

    with pytest.raises(SynchronousOnlyOperation, match=alternative):
        async_to_sync(view)()
    assert not JobRun.objects.exists()
