"""The value of a secret option is in no table, output or error of a run: a search of all of them finds nothing."""

from __future__ import annotations

import io
import json
import subprocess
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.apps import apps
from django.core import serializers
from django.core.management import CommandError, call_command
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs import LockManager, SecretRef
from cloudrun_jobs.argv import redaction
from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.exceptions import InvalidArguments, JobFailed
from cloudrun_jobs.locks.names import lock_name
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.runs.data import run_data
from cloudrun_jobs.signals import item_failed
from tests.jobs.management.commands import echo

VALUE = "s3cr\"et/'日本\\%41\n&x"
TOKEN = SecretRef("token")

Run = Callable[..., Any]


class Unprintable(Exception):
    """An exception that computes its text."""

    def __init__(self, value: str) -> None:
        super().__init__()
        self._parts = (value[:3], value[3:])

    def __str__(self) -> str:
        return "".join(self._parts)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Callable[[Run], None]:
    """Let the job's `run()` call a function with the command and the value."""
    monkeypatch.setattr(echo.Command, "secret_options", ("note",), raising=False)
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "SECRETS": {"token": VALUE, "number": "1234567"}}

    def replace(run: Run) -> None:
        monkeypatch.setattr(echo.Command, "run", lambda self, *args, **options: run(self, options["note"]))

    return replace


@pytest.fixture(autouse=True)
def _nothing_stays_protected() -> Iterator[None]:
    yield
    assert not redaction.is_protecting()


def everything() -> str:
    """Return what the database has, and what the commands show."""
    models = apps.get_app_config("cloudrun_jobs").get_models()
    parts = [serializers.serialize("json", model._default_manager.all()) for model in models]
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            parts.append(repr(cursor.fetchall()))
    shown = io.StringIO()
    call_command("cloudrun_jobs", "runs", stdout=shown)
    for run in JobRun.objects.all():
        call_command("cloudrun_jobs", "show", str(run.pk), "--traceback", stdout=shown)
        parts.append(json.dumps(run_data(run, traceback=True), default=str))
    return "\n".join([*parts, shown.getvalue()])


def assert_nowhere(text: str, value: str = VALUE) -> None:
    """Assert that the text has the value in no form."""
    redaction.protect([value])
    try:
        assert redaction.mask(text) == text
    finally:
        redaction.release([value])


def fail(error: BaseException) -> None:
    raise error


def fail_with_cause(value: str) -> None:
    try:
        raise KeyError(value)
    except KeyError as error:
        error.add_note(f"note {value}")
        raise RuntimeError(f"<{value}>", {"a": [value]}, value.encode()) from error


RUNS: list[Run] = [
    lambda job, value: {"a": [value, {value: f"x{value}"}], "b": value},
    lambda job, value: [json.dumps({"token": value}), repr(value)],
    lambda job, value: job.progress(1, 2, f"at {value}"),
    lambda job, value: f"text {value}",
]

FAILURES: list[Run] = [
    lambda job, value: fail(ValueError(f"bad {value}")),
    lambda job, value: fail(KeyError(value)),
    lambda job, value: fail(CommandError(f"bad {value}")),
    lambda job, value: fail(SystemExit(f"bad {value}")),
    lambda job, value: fail(OSError(2, "No such file", value)),
    lambda job, value: fail(Unprintable(value)),
    lambda job, value: fail(UnicodeDecodeError("utf-8", value.encode(), 0, 1, value)),
    lambda job, value: fail(ExceptionGroup(value, [ValueError(value)])),
    lambda job, value: fail(BaseExceptionGroup(value, [SystemExit(value)])),
    lambda job, value: fail(subprocess.CalledProcessError(1, ["curl", value], output=value)),
    lambda job, value: fail(type(f"E{value}", (Exception,), {})(value)),
    lambda job, value: fail_with_cause(value),
    lambda job, value: json.loads(f"{value} is no JSON"),
    lambda job, value: {"no JSON": {value}},
    lambda job, value: {"key": object(), value: 1},
]


def call(**options: Any) -> Any:
    return call_command("echo", **options)


def delay(**options: Any) -> Any:
    return echo.Command().delay(**options).result()


@pytest.mark.parametrize("start", [call, delay])
@pytest.mark.parametrize("number", range(len(RUNS)))
def test_results_are_masked(work: Callable[[Run], None], start: Callable[..., Any], number: int) -> None:
    """Results and progress have asterisks in place of the value."""
    work(RUNS[number])
    result = start(note=TOKEN)

    assert_nowhere(everything() + repr(result))
    assert "***" in everything()


@pytest.mark.parametrize("start", [call, delay])
@pytest.mark.parametrize("number", range(len(FAILURES)))
def test_errors_are_masked(work: Callable[[Run], None], start: Callable[..., Any], number: int) -> None:
    """Neither the record nor the caller's exception contains the value."""
    work(FAILURES[number])

    with pytest.raises((Exception, SystemExit)) as caught:
        start(note=TOKEN)

    shown = f"{caught.value} {caught.value!r} {caught.value.__cause__!r} {getattr(caught.value, 'code', '')}"
    shown += "".join(traceback.format_exception(caught.value))
    assert_nowhere(everything() + shown)
    assert JobRun.objects.get().status == "failed"


def test_exception_keeps_its_type(work: Callable[[Run], None]) -> None:
    """The caller can handle the exception; only an exception whose text cannot be masked becomes a `JobFailed`."""
    work(FAILURES[1])
    with pytest.raises(KeyError):
        delay(note=TOKEN)
    work(FAILURES[5])
    with pytest.raises(JobFailed, match=r"^Unprintable: \*\*\*$"):
        delay(note=TOKEN)


def test_value_on_the_command_line_is_nowhere(work: Callable[[Run], None]) -> None:
    """A plain value is accepted on the command line; the record does not contain it."""
    work(RUNS[0])
    call_command("echo", f"--note={VALUE}")
    call_command("echo", note=VALUE)
    call_command("echo", f"--note={VALUE}", f"x{VALUE}y")

    assert_nowhere(everything())
    assert JobRun.objects.filter(argv=["echo", "--note=[secret]"]).count() == 2


def test_output_is_masked(work: Callable[[Run], None]) -> None:
    """The command's output is masked, on its own streams and on streams of the caller."""

    def run(job: CloudRunJobs, value: str) -> None:
        job.stdout.write(f"a {value}", ending="!")
        job.stderr.write(job.style.ERROR(json.dumps([value])))

    work(run)
    written, failed = io.StringIO(), io.StringIO()
    call_command("echo", note=VALUE, stdout=written, stderr=failed)

    assert (written.getvalue(), failed.getvalue()) == ("a ***!", '["***"]\n')


def test_numbers_are_masked(work: Callable[[Run], None]) -> None:
    """A number may be the value, or contain it."""
    work(lambda job, value: [int(value), float(f"{value}.5"), {"n": int(f"9{value}9")}, 7])

    assert delay(note=SecretRef("number")) == ["***", "***", {"n": "***"}, 7]


def test_locks_and_requests_of_the_run(work: Callable[[Run], None]) -> None:
    """The value is neither in the name of a lock nor in a request for another job."""
    refused: list[Exception] = []

    def run(job: CloudRunJobs, value: str) -> None:
        with LockManager(f"partner {value}").lock(timeout=5):
            for request in (lambda: job.delay(f"x {value}"), lambda: job.using(env={"A": value}).delay()):
                with pytest.raises(InvalidArguments, match="the value of a secret option") as caught:
                    request()
                refused.append(caught.value)
            found.append(everything())
        found.append(repr(lock_name(f"partner {value}")))

    found: list[str] = []
    work(run)
    delay(note=TOKEN)

    assert_nowhere(f"{found} {refused}")


def test_items_and_reduce(work: Callable[[Run], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure of an item, and the result of `reduce()`, are masked."""

    def run(job: Any, value: str) -> str:
        for each in job.claim([1, 2]):
            with job.item(each):
                raise ValueError(value)
        return value

    monkeypatch.setattr(echo.Command, "reduce", lambda self, results: [*results, VALUE], raising=False)
    monkeypatch.setattr(echo.Command, "reduce_partial", True)
    work(run)
    errors: list[Exception] = []

    def receive(sender: object, error: Exception, **values: Any) -> None:
        errors.append(error)

    item_failed.connect(receive)
    with pytest.raises(JobFailed) as caught:
        delay(note=TOKEN)

    assert_nowhere(f"{everything()} {caught.value} {errors!r}")
    assert len(errors) == 6  # Each item has three tries.


def test_two_threads(work: Callable[[Run], None], settings: Any) -> None:
    """When a run ends, the values of other runs stay protected."""
    ended = threading.Event()
    redaction.protect([VALUE])
    work(lambda job, value: ended.set())
    delay(note=TOKEN)

    assert ended.is_set()
    assert redaction.mask(VALUE) == "***"
    redaction.release([VALUE])


values = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.sampled_from("\\\"'%\n-日&"), min_size=6
).filter(lambda text: len(text.strip()) >= 6)


@given(value=values)
def test_any_value(value: str) -> None:
    """Values with quotes, backslashes, percent signs, newlines, Japanese and dashes are masked in each form."""
    redaction.protect([value])
    try:
        error = ValueError(f"<{value}>", {"a": value})
        shown = [redaction.mask(str(error)), *map(redaction.mask, (repr(error), json.dumps([value])))]
        result = redaction.masked({"a": [f"<{value}>", {value: 1}]})
    finally:
        redaction.release([value])

    assert result == {"a": ["<***>", {"***": 1}]}
    assert all(redaction.MASK in text for text in shown)
    assert_nowhere("".join(shown), value)
