"""A secret option takes a reference, whose value only `run()` gets; a plain value is rejected or redacted."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.management import CommandError, call_command

from cloudrun_jobs import SecretRef
from cloudrun_jobs.argv.redaction import redact
from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.exceptions import InvalidArguments, InvalidSecret, RerunRefused, SecretNotFound
from cloudrun_jobs.models import JobRun
from tests.backends.server import CloudRun
from tests.jobs.management.commands import echo
from tests.runs.conftest import cloud

__all__ = ["cloud"]

VALUE = "hunter2"
REFERENCE = SecretRef("partner-token:3")
SENT = ["echo", "--note=secret:partner-token:3", "--partner=7"]


@pytest.fixture(autouse=True)
def _secret_note(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    monkeypatch.setattr(echo.Command, "secret_options", ("note", "words"), raising=False)
    settings.CLOUDRUN_JOBS = {
        **settings.CLOUDRUN_JOBS,
        "SECRETS": {"partner-token": ["first!", "second", VALUE], "number": "1234567", "short": "12345\n"},
    }


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The options that `run()` gets."""
    calls: list[Any] = []
    monkeypatch.setattr(echo.Command, "run", lambda self, *args, **options: calls.append(options))
    return calls


def add(monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """Give the command another secret option, `--key`."""
    add_arguments = echo.Command.add_arguments

    def extended(self: CloudRunJobs, parser: Any) -> None:
        add_arguments(self, parser)  # type: ignore[arg-type]
        parser.add_argument("--key", **options)

    monkeypatch.setattr(echo.Command, "add_arguments", extended)
    monkeypatch.setattr(echo.Command, "secret_options", ("key",))


def test_container_gets_the_reference(cloud: CloudRun) -> None:
    """The request and the record contain the reference."""
    run = echo.Command().delay(note=REFERENCE, partner=7).run
    sent = [list(one.overrides.container_overrides[0].args) for one in cloud.requests]

    assert sent == [SENT]
    assert run.argv == SENT


def test_run_gets_the_value(given: list[Any]) -> None:
    """The value is read immediately before `run()`."""
    run = echo.Command().delay(note=REFERENCE, partner=7).run

    assert (given[0]["note"], given[0]["partner"]) == (VALUE, 7)
    assert run.argv == SENT


def test_rerun_has_the_reference(cloud: CloudRun) -> None:
    """A rerun reads the secret again."""
    assert echo.Command().delay(note=REFERENCE, partner=7).run.rerun().run.argv == SENT


def test_rerun_of_a_plain_value_is_refused() -> None:
    """A plain value is not recorded, so its run cannot be rerun."""
    call_command("echo", note=VALUE)

    with pytest.raises(RerunRefused, match="values of its secret options are not recorded"):
        JobRun.objects.get().rerun()


REQUESTS: list[Callable[[Any], object]] = [
    lambda job: job.delay(note=VALUE),
    lambda job: job.delay(VALUE),
    lambda job: job.delay(words=[VALUE, REFERENCE]),
    lambda job: job.delay(note="a"),
    lambda job: job.delay(note=""),
    lambda job: job.using(env={"A": "1"}).delay(note=VALUE),
    lambda job: job.reserve(60, note=VALUE),
    lambda job: job.delay_many([{"partner": 7}, {"note": VALUE}]),
    lambda job: job.delay_argv(["--note", VALUE]),
    lambda job: job.delay_argv(["--", VALUE]),
    lambda job: async_to_sync(job.adelay)(note=VALUE),
    lambda job: call_command("cloudrun_jobs", "run", "echo", "--", "--note", VALUE),
]


@pytest.mark.parametrize("request_run", REQUESTS, ids=map(str, range(len(REQUESTS))))
@pytest.mark.parametrize(
    "changes",
    [{"ENVIRONMENT": "test"}, {"OPTIONS": {"service_account": "app-jobs@acme.iam.gserviceaccount.com"}}],
    ids=["test", "production"],
)
def test_requests_refuse_plain_values(
    settings: Any, cloud: CloudRun, changes: dict[str, Any], request_run: Callable[[Any], object]
) -> None:
    """Requests with a plain value fail in every environment, not only in production."""
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, **changes}

    with pytest.raises((InvalidArguments, CommandError), match=r"SecretRef") as caught:
        request_run(echo.Command())

    assert VALUE not in str(caught.value)
    assert not JobRun.objects.exists()
    assert cloud.requests == []


def test_options_that_are_not_given_pass(given: list[Any]) -> None:
    """None and the default need no secret."""
    echo.Command().delay(note=None)
    echo.Command().delay()

    assert [options["note"] for options in given] == [None, None]


def test_reference_is_for_secret_options_alone() -> None:
    """A reference for another option is rejected, because it would not be resolved."""
    with pytest.raises(InvalidArguments, match="partner: expected a plain value, got a SecretRef"):
        echo.Command().delay(partner=SecretRef("number"))


@pytest.mark.parametrize(
    ("options", "given_value", "expected"),
    [
        ({}, REFERENCE, VALUE),
        ({"type": str.upper}, REFERENCE, VALUE.upper()),
        ({"type": int}, SecretRef("number"), 1234567),
        ({"type": json.loads}, SecretRef("number"), 1234567),
        ({"choices": [VALUE, "a"]}, REFERENCE, VALUE),
        ({"type": int, "choices": [1234567]}, SecretRef("number"), 1234567),
        ({"nargs": "?", "const": "constant"}, REFERENCE, VALUE),
        ({"nargs": "+"}, [REFERENCE, SecretRef("number")], [VALUE, "1234567"]),
        ({"nargs": 2, "type": str.upper}, [REFERENCE, REFERENCE], [VALUE.upper()] * 2),
        ({"action": "append"}, [REFERENCE, SecretRef("number")], [VALUE, "1234567"]),
        ({"action": "append", "nargs": 2}, [[REFERENCE, SecretRef("number")]], [[VALUE, "1234567"]]),
        ({"action": "extend", "nargs": "*", "type": str.title}, [REFERENCE], [VALUE.title()]),
        ({"required": True}, REFERENCE, VALUE),
        ({"default": "secret:partner-token:3", "type": str.upper}, None, VALUE.upper()),
        ({"default": "plain default"}, None, "plain default"),
    ],
    ids=map(str, range(15)),
)
def test_type_and_choices_apply_to_the_value(
    monkeypatch: pytest.MonkeyPatch, given: list[Any], options: dict[str, Any], given_value: Any, expected: Any
) -> None:
    """The parser of the request does not change the reference, in every form of argument."""
    add(monkeypatch, **options)
    echo.Command().delay(**({} if given_value is None else {"key": given_value}))

    assert given[0]["key"] == expected


@pytest.mark.parametrize("arguments", [["--note", "secret:partner-token:3"], ["-nsecret:partner-token:3"], []])
def test_forms_of_references(monkeypatch: pytest.MonkeyPatch, given: list[Any], arguments: list[str]) -> None:
    """References on the command line and of call_command() are resolved too."""
    add_arguments = echo.Command.add_arguments

    def extended(self: CloudRunJobs, parser: Any) -> None:
        add_arguments(self, parser)  # type: ignore[arg-type]
        parser.add_argument("-n", dest="note")

    monkeypatch.setattr(echo.Command, "add_arguments", extended)
    call_command("echo", *arguments, **({} if arguments else {"note": REFERENCE}))

    assert given[0]["note"] == VALUE


@pytest.mark.parametrize("via_call_command", [True, False])
def test_subcommands_and_groups(monkeypatch: pytest.MonkeyPatch, given: list[Any], via_call_command: bool) -> None:
    """Options of subcommands and of mutually exclusive groups are resolved; required ones too."""

    def add_arguments(self: CloudRunJobs, parser: Any) -> None:
        below = parser.add_subparsers(dest="verb").add_parser("send")
        group = below.add_mutually_exclusive_group(required=True)
        group.add_argument("--note", type=str.upper)
        group.add_argument("--none", action="store_true")

    monkeypatch.setattr(echo.Command, "add_arguments", add_arguments)
    monkeypatch.setattr(echo.Command, "secret_options", ("note",))
    if via_call_command:
        call_command("echo", "send", "--note=secret:partner-token:3")
    else:
        echo.Command().delay("send", note=REFERENCE)

    assert given[0]["note"] == VALUE.upper()
    assert JobRun.objects.get().argv == ["echo", "send", "--note=secret:partner-token:3"]


@pytest.mark.parametrize(
    ("options", "reference", "error", "message"),
    [
        ({}, "unknown", SecretNotFound, "echo: key: "),
        (
            {"type": int},
            "partner-token",
            InvalidArguments,
            "the option's type or choices reject .* 'partner-token'",
        ),
        ({"choices": ["a"]}, "partner-token", InvalidArguments, "the option's type or choices reject"),
        ({}, "short", InvalidSecret, "at least 6 characters in the secret 'short'"),
    ],
    ids=str,
)
def test_run_fails_without_the_value(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], reference: str, error: type[Exception], message: str
) -> None:
    """The error names the option and the secret."""
    add(monkeypatch, **options)

    with pytest.raises(error, match=message) as caught:
        echo.Command().delay(key=SecretRef(reference))

    run = JobRun.objects.get()
    assert (run.status, run.error_class) == ("failed", error.__name__)
    assert reference in str(caught.value)
    assert not any(value in str(caught.value) + run.traceback for value in (VALUE, "12345"))


@pytest.mark.parametrize("value", ["", "a", "12345", "  a   "])
def test_short_values_are_refused(value: str) -> None:
    """Masking short values would garble ordinary text."""
    for arguments, options in (((f"--note={value}",), {}), ((), {"note": value})):
        with pytest.raises((InvalidArguments, CommandError), match="at least 6 characters"):
            call_command("echo", *arguments, **options)


def test_lock_key_has_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """`get_lock_key()` gets the reference as text, and a redacted plain value."""
    keys: list[Any] = []
    monkeypatch.setattr(echo.Command, "get_lock_key", lambda self, **options: keys.append(options["note"]) or "a")
    echo.Command().delay(note=REFERENCE)
    call_command("echo", note=VALUE)

    assert set(keys) == {"secret:partner-token:3", "[secret]"}


def test_same_key_with_another_value_is_refused() -> None:
    """The references are compared."""
    echo.Command().delay(note=REFERENCE, idempotency_key="a")

    with pytest.raises(InvalidArguments, match="other arguments"):
        echo.Command().delay(note=SecretRef("number"), idempotency_key="a")


def test_called_by_other_code() -> None:
    """call_command() hides the value as well, however it is given."""
    call_command("echo", note=VALUE)
    call_command("echo", f"--note={VALUE}")

    assert [run.argv for run in JobRun.objects.all()] == [["echo", "--note=[secret]"]] * 2


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"type": int}, VALUE),
        ({"type": json.loads}, VALUE),
        ({"choices": ["a", "b"]}, VALUE),
        ({"type": {}.__getitem__}, VALUE),  # Raises KeyError.
        ({}, [VALUE]),
        ({}, {"a": VALUE}),
        ({}, VALUE.encode()),
        ({"nargs": 2}, ["a", f"-{VALUE}"]),
        ({"nargs": "+"}, VALUE),
        ({"action": "store_true"}, VALUE),
        ({"action": "count"}, VALUE),
        ({"action": "append"}, VALUE),
        ({"action": "append_const", "const": 1}, [VALUE]),
        ({"type": str.upper, "choices": ["A"]}, VALUE),
        ({"type": float}, VALUE),
    ],
)
def test_error_does_not_repeat_the_value(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], value: Any
) -> None:
    """Neither argparse's messages nor the package's own contain the value."""
    add(monkeypatch, **options)

    with pytest.raises(InvalidArguments) as caught:
        echo.Command().delay(key=value)

    assert "key" in str(caught.value)
    assert VALUE not in str(caught.value).lower()
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"action": "store_const", "const": VALUE}, "another"),
        ({"action": "store_const", "const": 1, "default": VALUE}, "another"),
        ({"action": "append", "default": [VALUE]}, ["another"]),
        ({"action": "append_const", "const": VALUE}, ["another"]),
        ({"action": "count", "default": 4242}, 1),
        ({"choices": [VALUE]}, "another"),
    ],
    ids=str,
)
def test_error_does_not_show_declared_values(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], value: Any
) -> None:
    """The expected values may be secret as well."""
    add(monkeypatch, **options)

    with pytest.raises(InvalidArguments, match="key") as caught:
        echo.Command().delay(key=value)

    assert VALUE not in str(caught.value)
    assert "4242" not in str(caught.value)


def test_error_of_a_lock_key_does_not_repeat_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception of get_lock_key() may contain the value."""

    def get_lock_key(self: CloudRunJobs, **options: Any) -> Any:
        raise ValueError(VALUE)

    monkeypatch.setattr(echo.Command, "get_lock_key", get_lock_key)

    with pytest.raises(InvalidArguments, match="make no lock key") as caught:
        echo.Command().delay(note=REFERENCE)

    assert VALUE not in str(caught.value)


def test_command_line_error_does_not_repeat_the_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A container's log has no value either."""
    add(monkeypatch, type=int)
    monkeypatch.setattr(sys, "argv", ["manage.py", "echo", "--key", VALUE])

    with pytest.raises(SystemExit):
        echo.Command().run_from_argv(["manage.py", "echo", "--key", VALUE])

    assert "argument --key: invalid value: [secret]" in (printed := capsys.readouterr().err)
    assert VALUE not in printed


@pytest.mark.parametrize(
    ("arguments", "texts", "shown"),
    [
        (["-kvalue"], {"value"}, ["-k[secret]"]),
        (["-vkvalue"], {"value"}, ["-vk[secret]"]),
        (["-k=value"], {"value"}, ["-k=[secret]"]),
        (["--key="], {""}, ["--key=[secret]"]),
        (["--key=a=b"], {"a=b"}, ["--key=[secret]"]),
        (["--key", "a", "b"], {"a", "b"}, ["--key", "[secret]", "[secret]"]),
        (["--other=1", "-v"], {"2"}, ["--other=1", "-v"]),
        (["--values"], {"values"}, ["--values"]),
    ],
)
def test_forms_of_arguments(arguments: list[str], texts: set[str], shown: list[str]) -> None:
    """Each form in which argparse takes a value is recognised."""
    assert redact(arguments, texts) == shown


def test_declared_for_all_jobs(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """DEFAULTS may declare it, as any attribute."""
    monkeypatch.delattr(echo.Command, "secret_options")
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "DEFAULTS": {"secret_options": ["note"]}}

    with pytest.raises(InvalidArguments, match="expected a SecretRef"):
        echo.Command().delay(note=VALUE)


def test_help_needs_no_valid_settings(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser is created although no job could run."""
    monkeypatch.delattr(echo.Command, "secret_options")
    settings.CLOUDRUN_JOBS = {"unknown": 1}

    assert "--note" in echo.Command().create_parser("manage.py", "echo").format_help()
