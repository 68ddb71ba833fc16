"""The runs that a form starts: their number, their requester and the notices."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client, override_settings
from django.urls import reverse

from cloudrun_jobs.exceptions import AccessDenied, JobNotDeployed
from cloudrun_jobs.models import JobRun, Status, Trigger
from tests.dashboard.start_pages import (
    JOB,
    SESSION,
    argument,
    error_of,
    job_with,
    post,
    sign_in,
    start_url,
    text_of,
    values_of,
)

BACKENDS = "tests.example.backends"


@pytest.fixture
def operator() -> Client:
    return sign_in("view_jobrun", "run_job")


def test_run_is_recorded_and_audited(operator: Client) -> None:
    """It was triggered by hand, and requested by the user, who has an entry in the history of the admin."""
    with job_with():
        post(operator)

    run = JobRun.objects.get()
    assert (run.trigger, run.requested_by, run.status) == (Trigger.MANUAL, "mina", Status.SUCCEEDED)
    assert LogEntry.objects.get().object_id == str(run.pk)


def test_job_without_arguments_is_confirmed(operator: Client) -> None:
    """The page has a form with a button, the environment and the help of the job."""
    with job_with(help="Send the invoices") as received:
        response = operator.get(start_url())

    assert "Send the invoices The job runs in the environment test ." in text_of(response)
    assert "Run now" in text_of(response)
    assert received == []


@pytest.mark.parametrize(("count", "kind"), [(20, 'type="checkbox"'), (21, "<option")])
def test_many_choices_are_one_control(operator: Client, count: int, kind: str) -> None:
    """A list of up to 20 choices has checkboxes; a longer one is a box to select from."""
    choices = [f"c{number}" for number in range(count)]
    with job_with(argument("--markets", nargs="*", choices=choices)) as received:
        content = operator.get(start_url()).content.decode()
        post(operator, markets=["c0", "c19"])

    assert content.partition("c19")[0].rpartition(kind)[1]
    assert received == [{"markets": ["c0", "c19"]}]


def test_dry_run_is_beside_the_button(operator: Client) -> None:
    """The flag is the last field, whatever its place among the arguments."""
    with job_with(argument("--dry-run", action="store_true"), argument("--x")) as received:
        text = text_of(operator.get(start_url()))
        post(operator, dry_run="on")

    assert text.index("X") < text.index("Dry run") < text.index("Run now")
    assert text.count("Dry run") == 1
    assert received == [{"dry_run": True, "x": None}]


def test_second_submit_starts_nothing(operator: Client) -> None:
    """The same form again shows the first run, and says so."""
    with job_with(argument("--x")) as received:
        body = values_of(x="a")
        responses = [operator.post(start_url(), body) for _ in range(2)]

    assert responses[0].url == responses[1].url
    assert len(received) == 1
    assert "This form had already started this run." in str(operator.session["cloudrun_jobs_notices"])


def test_form_with_other_values_is_not_sent_again(operator: Client) -> None:
    """A notice says that it has started a run; the same form may start another one."""
    with job_with(argument("--x")) as received:
        body = values_of(x="a")
        operator.post(start_url(), body)
        response = operator.post(start_url(), {**body, "option-x": "b"})
        key = response.context["key"]
        operator.post(start_url(), {"key": key, "option-x": "b"})

    assert "This form has already started a run, with other values." in text_of(response)
    assert [options["x"] for options in received] == ["a", "b"]


def test_key_is_that_of_the_user(operator: Client) -> None:
    """Another user's form with the same key starts a run of its own."""
    with job_with() as received:
        body = values_of()
        operator.post(start_url(), body)
        sign_in("view_jobrun", "run_job", name="jun").post(start_url(), body)

    assert len(received) == 2


@pytest.mark.parametrize("key", ["", "1", "\0", "x" * 10_000])
def test_form_without_a_key_starts_nothing(operator: Client, key: str) -> None:
    """The form is shown again, with a new key and the values."""
    with job_with(argument("--x")) as received:
        response = operator.post(start_url(), {"key": key, "option-x": "a"})

    assert "The form was incomplete. Send it again." in text_of(response)
    assert 'value="a"' in response.content.decode()
    assert received == []


@pytest.mark.parametrize("value", ["", "a"])
def test_key_survives_an_error(operator: Client, value: str) -> None:
    """The corrected form has the key of the first, so that only one of them starts a run."""
    key = uuid4()
    with job_with(argument("--x", type=int, required=True)):
        response = operator.post(start_url(), {"key": key, "option-x": value})

    assert f'name="key" value="{key}"' in response.content.decode()


@pytest.mark.parametrize(
    ("permissions", "status"),
    [((), 403), (("view_jobrun",), 403), (("view_jobrun", "run_job"), 200), (("view_jobrun", "cancel_job"), 403)],
)
def test_permission_is_needed(permissions: tuple[str, ...], status: int) -> None:
    """Only a user with run_job sees the form."""
    with job_with():
        assert sign_in(*permissions).get(start_url()).status_code == status


def test_reader_starts_nothing() -> None:
    """A forged form of a user without the permission is refused."""
    with job_with() as received:
        assert post(sign_in("view_jobrun")).status_code == 403

    assert received == []


def test_form_of_another_site_is_refused() -> None:
    """A POST needs the CSRF token of the page."""
    with job_with() as received:
        assert post(sign_in("view_jobrun", "run_job", enforce_csrf_checks=True)).status_code == 403

    assert received == []


@pytest.mark.parametrize("method", ["get", "post"])
def test_admin_needs_the_permission_to_read(method: str) -> None:
    """In the admin as well, a user who may not see runs sees no form and starts nothing."""
    url = reverse("admin:cloudrun_jobs_start", args=[JOB])
    with job_with() as received:
        response = getattr(sign_in("run_job"), method)(url, values_of())

    assert response.status_code == 403
    assert received == []


def fail(command: Any, *args: Any, **options: Any) -> None:
    raise ZeroDivisionError("no invoices")


def leave(command: Any, *args: Any, **options: Any) -> None:
    raise SystemExit(3)


@pytest.mark.parametrize("run", [fail, leave])
def test_failing_job_shows_its_run(operator: Client, run: Any) -> None:
    """Its record has the failure, and the notice the status."""
    with job_with(run=run):
        response = post(operator)

    assert response.url.endswith(f"/{JobRun.objects.get(status=Status.FAILED).pk}/")
    assert "failed" in str(operator.session["cloudrun_jobs_notices"])


SERVICE_ERRORS = {
    JobNotDeployed("everything: no such job."): "Run “manage.py sync_cloudrun_jobs”, then try again.",
    AccessDenied("\x1bacme"): r"The service rejected the request (AccessDenied). \\x1bacme",
    RuntimeError("\x1bacme" + "x" * 100_000): r"The request failed (RuntimeError). \\x1bacmexxx",
}


@pytest.mark.parametrize(("error", "message"), SERVICE_ERRORS.items())
def test_run_that_was_not_sent_is_shown(
    operator: Client, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    """The notice says what to do, and the record has the reason."""
    monkeypatch.setattr("tests.example.backends.RejectingBackend.submit", Mock(side_effect=error))
    rejecting = {**SESSION, "ENVIRONMENT": "production", "BACKEND": f"{BACKENDS}.RejectingBackend"}
    with job_with(), override_settings(CLOUDRUN_JOBS=rejecting):
        response = post(operator)

    assert response.url.endswith(f"/{JobRun.objects.get().pk}/")
    assert message in str(operator.session["cloudrun_jobs_notices"])
    assert len(str(operator.session["cloudrun_jobs_notices"])) < 2200


def test_sent_run_is_shown(operator: Client) -> None:
    """Outside of local and test, the page does not wait for the run."""
    recording = {**SESSION, "ENVIRONMENT": "production", "BACKEND": f"{BACKENDS}.RecordingBackend"}
    with job_with(), override_settings(CLOUDRUN_JOBS=recording):
        response = post(operator)

    assert response.url.endswith(f"/{JobRun.objects.get().pk}/")
    assert "The run has been requested." in str(operator.session["cloudrun_jobs_notices"])


def subcommands(parser: Any) -> None:
    parser.add_argument("--verbose", action="store_true")
    actions = parser.add_subparsers(dest="action", required=True)
    add = actions.add_parser("add", help="Add a partner", aliases=["create"])
    add.add_argument("name")
    nested = add.add_subparsers()
    nested.add_parser("deep").add_argument("--depth", type=int)
    actions.add_parser("list").add_argument("--limit", type=int)


def test_subcommand_is_chosen_first(operator: Client) -> None:
    """The page has a link to the form of each subcommand, and none without one if one is required."""
    with job_with(subcommands):
        page = operator.get(start_url())

    assert "add Add a partner list" in text_of(page)
    assert f'href="{start_url("add")}"' in page.content.decode()
    assert "Run now" not in text_of(page)


def test_subcommand_runs(operator: Client) -> None:
    """Its form has its arguments below those of the command."""
    with job_with(subcommands) as received:
        page = operator.get(start_url("list"))
        post(operator, "list", verbose="on", limit="3")

    assert [*page.context["form"].fields] == ["option-verbose", "option-limit"]
    assert received == [{"verbose": True, "action": "list", "limit": 3}]


def test_subcommand_of_a_subcommand_runs(operator: Client) -> None:
    """It need not have a dest, and may be left out if it is optional."""
    with job_with(subcommands) as received:
        post(operator, "add", "deep", name="mina", depth="2")
        post(operator, "add", name="mina")

    assert received == [
        {"verbose": False, "action": "add", "name": "mina", "depth": 2},
        {"verbose": False, "action": "add", "name": "mina"},
    ]


def shadowed(parser: Any) -> None:
    parser.add_argument("--limit")
    parser.add_subparsers(dest="action").add_parser("list").add_argument("--limit", type=int, default=3)


def test_option_that_a_subcommand_replaces(operator: Client) -> None:
    """An option that the command and its subcommand have is that of the subcommand, as in argparse."""
    with job_with(shadowed) as received:
        response = post(operator, "list", limit="a")
        post(operator, "list", limit="4")

    assert [*response.context["form"].fields] == ["option-limit"]
    assert error_of(response, "limit") == "invalid int value: 'a'"
    assert received == [{"action": "list", "limit": 4}]


def test_unknown_subcommand(operator: Client) -> None:
    """A subcommand that was removed while its form was open is not found."""
    with job_with(subcommands):
        response = post(operator, "remove", name="mina")

    assert response.status_code == 404
    assert "The job has no such subcommand." in text_of(response)


def test_value_of_option_with_optional_value(operator: Client) -> None:
    """The option has a field for its value, and a box for itself alone."""
    with job_with(argument("--x", nargs="?", const="auto")) as received:
        post(operator, **{"x:alone": "on"})
        response = post(operator, **{"x": "a", "x:alone": "on"})

    assert received == [{"x": "auto"}]
    assert "No run was started." in text_of(response)
