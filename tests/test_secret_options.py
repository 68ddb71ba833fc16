"""The value of a secret option reaches the container, and is never shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command

from cloudrun_jobs.argv.redaction import redact
from cloudrun_jobs.backends import current
from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.exceptions import InvalidArguments
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.runs import reconcile
from cloudrun_jobs.runs.data import run_data
from tests.backends.server import CloudRun
from tests.jobs.management.commands import echo
from tests.runs.conftest import cloud, request

__all__ = ["cloud"]

VALUE = "hunter2"
SHOWN = ["echo", "--note=[secret]", "--partner=7"]


@pytest.fixture(autouse=True)
def _secret_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(echo.Command, "secret_options", ("note", "words"), raising=False)


def add(monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """Give the command another secret option, `--key`."""
    add_arguments = echo.Command.add_arguments

    def extended(self: CloudRunJobs, parser: Any) -> None:
        add_arguments(self, parser)  # type: ignore[arg-type]
        parser.add_argument("--key", **options)

    monkeypatch.setattr(echo.Command, "add_arguments", extended)
    monkeypatch.setattr(echo.Command, "secret_options", ("key",))


def test_container_gets_the_value(cloud: CloudRun) -> None:
    """The record's argv, its data and the log have no value; the request to Cloud Run does."""
    run = echo.Command().delay(note=VALUE, partner=7).run
    sent = [list(one.overrides.container_overrides[0].args) for one in cloud.requests]

    assert sent == [["echo", f"--note={VALUE}", "--partner=7"]] == [run.secret_argv]
    assert run.argv == SHOWN
    assert VALUE not in json.dumps(run_data(run, traceback=True), default=str)


def test_rerun_gets_the_value(cloud: CloudRun) -> None:
    """A rerun has the same value, and hides it too."""
    again = echo.Command().delay(note=VALUE, partner=7).run.rerun().run

    assert (again.argv, again.arguments) == (SHOWN, ["echo", f"--note={VALUE}", "--partner=7"])


def test_reconcile_sends_the_value(cloud: CloudRun) -> None:
    """A run whose dispatcher died is dispatched with the value."""
    request(
        "echo",
        argv=SHOWN,
        secret_argv=["echo", f"--note={VALUE}"],
        environment="production",
        sending_until=datetime(2026, 1, 1, tzinfo=UTC),
    )

    assert reconcile.reconcile(current()) == {"sent": 1}

    assert [list(one.overrides.container_overrides[0].args) for one in cloud.requests] == [
        ["echo", f"--note={VALUE}"]
    ]


def test_same_key_with_another_value_is_refused() -> None:
    """The values are compared, not their redacted form."""
    echo.Command().delay(note=VALUE, idempotency_key="a")

    with pytest.raises(InvalidArguments, match="other arguments"):
        echo.Command().delay(note="another", idempotency_key="a")


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
        raise ValueError(options["note"])

    monkeypatch.setattr(echo.Command, "get_lock_key", get_lock_key)

    with pytest.raises(InvalidArguments, match="make no lock key") as caught:
        echo.Command().delay(note=VALUE)

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
    "change",
    [
        lambda monkeypatch: monkeypatch.setattr(echo.Command, "add_arguments", lambda self, parser: None),
        lambda monkeypatch: monkeypatch.setattr(echo.Command, "secret_options", ()),
    ],
    ids=["option gone", "no longer secret"],
)
def test_rerun_of_a_changed_command(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """The record shows which texts are secret, even if the command no longer declares them."""
    run = request("echo", argv=["echo", "--partner=[secret]"], secret_argv=["echo", f"--partner={VALUE}"])
    change(monkeypatch)

    with pytest.raises(InvalidArguments) as caught:
        run.rerun()

    assert "[secret]" in str(caught.value)
    assert VALUE not in str(caught.value)


@pytest.mark.parametrize("arguments", [["show", "{id}"], ["show", "{id}", "--json", "--traceback"], ["runs"]])
def test_commands_do_not_show_the_value(arguments: list[str]) -> None:
    """Neither tables nor JSON have the value."""
    run = echo.Command().delay(note=VALUE).run
    # The result is the job's own.
    JobRun.objects.update(result=None)
    output = StringIO()
    call_command("cloudrun_jobs", *(argument.format(id=run.pk) for argument in arguments), stdout=output)

    assert VALUE not in output.getvalue()


def test_reservations_do_not_show_the_value(cloud: CloudRun) -> None:
    """The arguments of a reserved run are hidden too."""
    request(
        "echo", argv=SHOWN, secret_argv=["echo", f"--note={VALUE}"], trigger="reserve", environment="production"
    )
    output = StringIO()
    call_command("cloudrun_jobs", "reservations", "--json", stdout=output)

    assert "[secret]" in output.getvalue()
    assert VALUE not in output.getvalue()


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

    assert echo.Command().delay(note=VALUE).run.argv == ["echo", "--note=[secret]"]


def test_help_needs_no_valid_settings(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser is created although no job could run."""
    monkeypatch.delattr(echo.Command, "secret_options")
    settings.CLOUDRUN_JOBS = {"unknown": 1}

    assert "--note" in echo.Command().create_parser("manage.py", "echo").format_help()
