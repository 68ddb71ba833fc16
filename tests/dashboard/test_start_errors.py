"""Forms that start nothing, and jobs that have no form."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, NoReturn
from unittest.mock import Mock
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.test import Client

from cloudrun_jobs.exceptions import InvalidSettings
from cloudrun_jobs.models import JobRun
from tests.dashboard.start_pages import (
    AddArguments,
    argument,
    error_of,
    job_with,
    post,
    sign_in,
    start_url,
    text_of,
    values_of,
)

MIB = 1024 * 1024


@pytest.fixture
def operator() -> Client:
    return sign_in("view_jobrun", "run_job")


def even(text: str) -> NoReturn:
    raise argparse.ArgumentTypeError("<b>expected</b> an \x1beven number")


def broken(text: str) -> NoReturn:
    raise RuntimeError("no such partner")


REFUSED: dict[str, tuple[AddArguments, str, str]] = {
    "int": (argument("--x", type=int), "seven", "invalid int value: 'seven'"),
    "long-int": (argument("--x", type=int), "9" * 5000, "invalid int value"),
    "own-type": (argument("--x", type=even), "7", r"<b>expected</b> an \x1beven number"),
    "json": (argument("--x", type=json.loads), "{", "invalid loads value"),
    "choice": (argument("--x", choices=["a"]), "b", "b is not one of the available choices"),
    "required": (argument("--x", required=True), "", "This field is required."),
    "positional": (argument("x"), "", "This field is required."),
    "NUL": (argument("--x"), "a\0b", "Null characters are not allowed."),
    "double-dash": (argument("x"), "--", "this Python's argparse loses the value '--'"),
    "number-of-values": (argument("--x", nargs=2), "a", "expected 2 arguments"),
    "dash-in-list": (argument("--x", nargs="+"), "a\n-b", "begins with '-' and would be read as an option"),
    "count": (argument("--x", action="count", default=1), "0", "greater than or equal to 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_error_is_at_the_field_of_its_argument(operator: Client, case: str) -> None:
    """The parser's error is at the field, the input stays, and nothing is started."""
    declared, value, error = REFUSED[case]
    with job_with(declared) as received:
        response = post(operator, x=value)

    assert response.status_code == 200
    assert error in error_of(response, "x")
    assert 'aria-invalid="true"' in response.content.decode()
    assert 'id_option-x_error"' in response.content.decode().partition("aria-describedby")[2]
    assert response.context["form"]["option-x"].value() == value
    assert "No run was started. Correct these values: X" in text_of(response)
    assert '<a href="#id_option-x">' in response.content.decode()
    assert (received, JobRun.objects.count()) == ([], 0)


def test_error_without_an_argument_is_above_the_form(operator: Client) -> None:
    """An error of the whole command line is above the form, and so is an exception of a type."""
    with job_with(argument("--x", type=broken)):
        response = post(operator, x="a")

    assert "The command's parser raised RuntimeError: no such partner" in text_of(response)


@pytest.mark.parametrize("size", [MIB, 200_000])
def test_too_long_value_is_refused(operator: Client, size: int) -> None:
    """A value that no container can be started with is an error, and stays in the form."""
    with job_with(argument("--x")):
        response = post(operator, x="a" * size)

    assert f"got one of {size + 4}" in text_of(response)
    assert "a" * size in response.content.decode()


def test_long_error_is_cut(operator: Client) -> None:
    """The error repeats the first 2,000 characters of a value."""
    with job_with(argument("--x", type=int)):
        response = post(operator, x="a" * 100_000)

    assert "a…" in error_of(response, "x")
    assert len(error_of(response, "x")) < 2100


@pytest.mark.parametrize("value", ["--settings=evil", "--help", "-h", "--pythonpath=/tmp", "@file", "=", "-"])
def test_value_is_never_an_option(operator: Client, value: str) -> None:
    """A value that looks like an option of manage.py arrives as the value."""
    with job_with(argument("--x"), argument("y")) as received:
        post(operator, x=value, y=value)

    assert received == [{"x": value, "y": value}]


def exclusive(parser: Any, *, required: bool = False) -> None:
    group = parser.add_mutually_exclusive_group(required=required)
    group.add_argument("--x")
    group.add_argument("--y", action="store_true")


def test_excluding_arguments_are_a_group(operator: Client) -> None:
    """The group says its rule; if two are set, the parser's error is at one of them."""
    with job_with(exclusive):
        page = operator.get(start_url())
        response = post(operator, x="a", y="on")

    assert "<legend><bdi>Set at most one of these.</bdi></legend>" in page.content.decode()
    assert error_of(response, "x") + error_of(response, "y") in {
        "not allowed with argument --x",
        "not allowed with argument --y",
    }


def test_group_of_hidden_arguments_is_not_shown(operator: Client) -> None:
    """A group has no legend if it has no field."""
    with job_with(exclusive, secret_options=["x", "y"]):
        page = operator.get(start_url())

    assert "Set at most one of these." not in text_of(page)


def test_required_group(operator: Client) -> None:
    """Of a required group, one argument must be set."""
    with job_with(lambda parser: exclusive(parser, required=True)):
        response = post(operator)

    assert "Set exactly one of these." in text_of(response)
    assert "one of the arguments --x --y is required" in text_of(response)


def test_arguments_with_the_same_dest(operator: Client) -> None:
    """Each has a field, and lists are joined; two other values are an error."""
    tags = (
        argument("--tag", action="append", dest="x"),
        argument("--vip", action="append_const", const=7, dest="x"),
    )
    names = (argument("--name", dest="y"), argument("--me", action="store_const", const="me", dest="y"))
    with job_with(*tags, *names) as received:
        post(operator, **{"x": "a\nb", "x:1": "on", "y:1": "on"})
        response = post(operator, **{"y": "mina", "y:1": "on"})

    assert received == [{"x": ["a", "b", 7], "y": "me"}]
    assert "not allowed with another argument for 'y'" in text_of(response)


HIDDEN = {
    "secret": (argument("--token"), {"secret_options": ["token"]}),
    "suppressed": (argument("--token", help=argparse.SUPPRESS), {}),
    "file": (
        argument("--token", type=argparse.FileType())
        if sys.version_info < (3, 14)
        else argument("--token", nargs=argparse.REMAINDER),
        {},
    ),
}


@pytest.mark.parametrize("case", HIDDEN)
def test_hidden_argument_has_no_field(operator: Client, case: str) -> None:
    """A secret, suppressed or unusable argument is not in the form, and a value for it is refused."""
    declared, attributes = HIDDEN[case]
    with job_with(declared, **attributes) as received:
        page = operator.get(start_url())
        response = post(operator, token="secret:theirs")

    assert "token" not in page.content.decode().replace("csrfmiddlewaretoken", "")
    assert "The options of this job have changed." in text_of(response)
    assert received == []


def test_job_with_a_required_secret_is_not_started_here(operator: Client) -> None:
    """The page names the argument and says how to start the job; a posted form starts nothing."""
    with job_with(argument("--token", required=True), secret_options=["token"]) as received:
        response = post(operator, token="secret:theirs")

    assert "--token" in text_of(response)
    assert "manage.py cloudrun_jobs run everything" in text_of(response)
    assert "<form" not in response.content.decode().partition("<main")[2]
    assert received == []


def test_options_of_django_are_not_in_the_form(operator: Client) -> None:
    """Only the job's own arguments are."""
    with job_with(argument("--x")):
        page = operator.get(start_url())

    assert [*page.context["form"].fields] == ["option-x"]


def test_texts_of_the_job_are_escaped(operator: Client) -> None:
    """Labels, help, defaults, choices and titles are text."""

    def add(parser: Any) -> None:
        group = parser.add_argument_group("<i>title", "<i>text \u202e")
        group.add_argument("--x", help="<i>help %(default)s %% %(prog)s", default="<i>default", metavar="<i>")
        group.add_argument("<i>y z", nargs="?", choices=["<i>\x1b", "b"])

    with job_with(add, help="<i>job \x1b"):
        page = operator.get(start_url()).content.decode().partition("<main")[2]

    assert "<i>" not in page
    assert "&lt;i&gt;help &lt;i&gt;default % manage.py everything" in page
    assert r"&lt;i&gt;job \x1b" in page
    assert r"\u202e" in page


def fail(parser: Any) -> NoReturn:
    raise LookupError("no such table: shop_partner")


def leave(parser: Any) -> NoReturn:
    sys.exit(3)


@pytest.mark.parametrize(
    ("add", "error"), [(fail, "LookupError: no such table: shop_partner"), (leave, "SystemExit: 3")]
)
@pytest.mark.parametrize("method", ["get", "post"])
def test_parser_that_cannot_be_built_is_explained(
    operator: Client, add: AddArguments, error: str, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The page says what the command raised, and the log of the request has it."""
    with job_with(add):
        response = getattr(operator, method)(start_url(), {"key": uuid4()})

    assert response.status_code == 503
    assert error in text_of(response)
    assert [(each.name, each.levelname, bool(each.exc_info)) for each in caplog.records] == [
        ("django.request", "ERROR", True)
    ]


def test_parser_may_print_and_query(operator: Client, capsys: Any) -> None:
    """What a command prints while it declares its arguments is not on the page, and its queries work."""
    with job_with(lambda parser: print(User.objects.count()), argument("--x")) as received:  # noqa: T201
        response = post(operator, x="a")

    assert response.status_code == 302
    assert received == [{"x": "a"}]


@pytest.mark.parametrize("method", ["get", "post"])
def test_removed_job(operator: Client, method: str) -> None:
    """A job that was removed while its form was open is not found, and the page says so."""
    with job_with():
        response = getattr(operator, method)(start_url(command="removed"), values_of(x="a"))

    assert response.status_code == 404
    assert "It may have been removed since the page was shown." in text_of(response)


def test_changed_options_start_nothing(operator: Client) -> None:
    """A value for an option that no longer exists is not dropped silently."""
    with job_with(argument("--x")) as received:
        response = post(operator, x="a", y="b")

    assert "The options of this job have changed." in text_of(response)
    assert received == []


def test_invalid_declaration(operator: Client) -> None:
    """The page names the fault."""
    with job_with(timeout=-1):
        response = operator.get(start_url())

    assert response.status_code == 503
    assert "The declaration of this job is invalid." in text_of(response)
    assert "timeout: expected" in text_of(response)


def test_invalid_settings(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page names the setting."""

    def find_job(name: str) -> NoReturn:
        raise InvalidSettings("CLOUDRUN_JOBS['REGION']: expected a region.")

    with job_with():
        monkeypatch.setattr("cloudrun_jobs.dashboard.start.pages.find_job", find_job)
        response = operator.get(start_url())

    assert response.status_code == 503
    assert "The settings are invalid. Run “manage.py check”. CLOUDRUN_JOBS['REGION']" in text_of(response)


def test_backend_that_cannot_be_loaded(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page says where the reason is."""
    error = InvalidSettings("CLOUDRUN_JOBS['BACKENDS']: expected a class.")
    with job_with():
        monkeypatch.setattr("cloudrun_jobs.backends.for_job", Mock(side_effect=error))
        response = operator.get(start_url())

    assert response.status_code == 500
    assert "The settings of cloudrun_jobs are invalid." in text_of(response)


def test_exception_of_the_lock_key(operator: Client, caplog: pytest.LogCaptureFixture) -> None:
    """An exception of the job before the run starts is shown above the form, without control characters."""

    def get_lock_key(command: Any, **options: Any) -> Any:
        raise LookupError("\x1bpartner")

    with job_with(get_lock_key=get_lock_key):
        response = post(operator)

    assert r"The request failed (LookupError). \x1bpartner" in text_of(response)
    assert [each.name for each in caplog.records if each.exc_info] == ["django.request"]
