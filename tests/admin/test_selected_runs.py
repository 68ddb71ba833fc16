"""The actions of the list of runs: cancel and rerun the selected ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.messages import get_messages
from django.db import OperationalError
from django.test import Client

from cloudrun_jobs.backends.inline import InlineBackend
from cloudrun_jobs.dashboard.admin_site import actions as selected_runs
from cloudrun_jobs.exceptions import ServiceUnavailable
from cloudrun_jobs.models import JobRun, Status
from tests.admin.conftest import RUNS, record
from tests.dashboard.start_pages import JOB, job_with

CONFIRM = f"{RUNS}rerun-selected/"


def act(staff: Client, action: str, *runs: Any, **values: Any) -> Any:
    """Post an action for these runs, as the list does."""
    selected = [getattr(run, "pk", run) for run in runs]
    return staff.post(RUNS, {"action": action, "_selected_action": selected, "index": 0, **values})


def messages_of(response: Any) -> list[str]:
    return [str(message) for message in get_messages(response.wsgi_request)]


def form_of(response: Any) -> dict[str, list[str]]:
    """Return the hidden fields of the page that confirms a rerun."""
    fields = re.findall('<input type="hidden" name="(key|run)" value="(.*?)">', response.content.decode())
    return {name: [value for each, value in fields if each == name] for name in ("key", "run")}


def test_cancel(staff: Client) -> None:
    """Runs that have not ended are cancelled, and the others are left as they are; the message counts both."""
    waiting, ended = record(status=Status.PENDING), record()

    response = act(staff, "cancel_runs", waiting, ended)

    waiting.refresh_from_db()
    assert waiting.status == Status.CANCELLED
    assert messages_of(response) == ["1 run was cancelled.", "1 run had already ended."]


def test_cancel_twice(staff: Client) -> None:
    """A second cancellation changes nothing, and says that the run has ended."""
    waiting = record(status=Status.PENDING)
    act(staff, "cancel_runs", waiting)

    second = act(staff, "cancel_runs", waiting)

    assert messages_of(second)[-1] == "1 run had already ended."
    assert LogEntry.objects.filter(object_id=waiting.pk).count() == 1


def test_cancel_of_a_running_run(staff: Client) -> None:
    """The cancellation of a run in this process is recorded."""
    running = record(status=Status.RUNNING, execution="own")

    response = act(staff, "cancel_runs", running)

    running.refresh_from_db()
    assert running.cancel_requested_at is not None
    assert messages_of(response) == ["1 run ends when its tasks detect the cancellation."]


def test_cancel_of_a_run_whose_job_is_gone(staff: Client) -> None:
    """A run can be cancelled without its command."""
    act(staff, "cancel_runs", gone := record("removed", Status.PENDING))

    gone.refresh_from_db()
    assert gone.status == Status.CANCELLED


def test_failed_request_to_the_service(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancellation that is recorded and not sent is reported as such; the others are carried out."""

    def cancel(*args: Any) -> bool:
        raise ServiceUnavailable("projects/acme is away")

    monkeypatch.setattr("cloudrun_jobs.runs.handle.operation", cancel)
    waiting, running = record(status=Status.PENDING), record(status=Status.RUNNING, execution="e")

    cancelled, count, failed = messages_of(act(staff, "cancel_runs", running, waiting))
    assert cancelled == "1 run was cancelled."
    assert count == "1 cancellation is recorded, but was not sent, for this reason:"
    assert failed.startswith("The service did not carry out")


def test_rerun_is_confirmed(staff: Client) -> None:
    """The action shows the runs with their arguments, and starts nothing."""
    run = record(argv=["echo", "--note=<b>\u202e"])

    response = act(staff, "rerun_runs", run)

    assert "--note=&lt;b&gt;\\u202e" in response.content.decode()
    assert JobRun.objects.count() == 1


@pytest.mark.parametrize("argv", [["echo", *["--partner=7"] * 10_000], {"a": ["b"] * 10_000}])
def test_long_arguments_are_cut(staff: Client, argv: Any) -> None:
    """The page shows the beginning of arguments of any size and kind."""
    content = act(staff, "rerun_runs", *[record(argv=argv) for _ in range(3)]).content.decode()

    assert len(content) < 40_000
    assert content.count("…</bdi>") == 3


def test_rerun(staff: Client) -> None:
    """The confirmed runs are started with the arguments of the earlier ones, in the user's name."""
    form = form_of(act(staff, "rerun_runs", record(argv=["echo", "--partner=7"]), record("removed")))

    response = staff.post(CONFIRM, form)

    new = JobRun.objects.exclude(pk__in=form["run"]).get()
    assert (new.argv, new.requested_by, new.status) == (["echo", "--partner=7"], "mina", Status.SUCCEEDED)
    assert messages_of(response) == [
        "1 run was started.",
        "1 run was not started again: its job no longer exists.",
    ]


def test_form_that_is_sent_twice(staff: Client) -> None:
    """A second submission of the same form starts nothing, and says so."""
    form = form_of(act(staff, "rerun_runs", record(), record()))
    responses = [staff.post(CONFIRM, form) for _ in range(2)]

    assert messages_of(responses[1])[-1] == "This form had already started 2 runs."
    assert JobRun.objects.count() == 4


def test_form_that_is_shown_twice(staff: Client) -> None:
    """Two forms start each run twice: it was confirmed twice."""
    run = record()
    for _ in range(2):
        staff.post(CONFIRM, form_of(act(staff, "rerun_runs", run)))

    assert JobRun.objects.count() == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        *(
            ({"argv": argv}, "1 run was not started again: its arguments were not recorded.")
            for argv in (None, 5, "echo", {"a": 1}, [[]], [None])
        ),
        (
            {"argv": ["echo", "--partner=seven"]},
            "Nothing was started: the command rejects",
        ),
    ],
)
def test_runs_that_cannot_be_repeated(staff: Client, values: Any, message: str) -> None:
    """A run without valid arguments is not started, and the message says why."""
    response = staff.post(CONFIRM, form_of(act(staff, "rerun_runs", record(**values))))

    assert messages_of(response)[-1].startswith(message)
    assert JobRun.objects.count() == 1


def test_job_whose_parser_fails(staff: Client, caplog: pytest.LogCaptureFixture) -> None:
    """An exception of the code of a job is reported and logged; the other runs are started."""
    form = form_of(act(staff, "rerun_runs", record(JOB), record()))

    with job_with(Mock(side_effect=RuntimeError("no partners"))):
        response = staff.post(CONFIRM, form)

    assert messages_of(response) == [
        "1 run was started.",
        "1 run was left as it is, for this reason:",
        "The request failed (RuntimeError). no partners",
    ]
    assert "no partners" in caplog.text


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (JobRun.DoesNotExist(), "The record of 1 run has been deleted."),
        (OperationalError("host db"), "The request failed (OperationalError). The log h"),
    ],
)
def test_failure_during_the_action(
    staff: Client, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    """If a record is deleted, or the database fails, the other runs are cancelled."""
    cancel, first = JobRun.cancel, record(status=Status.PENDING)

    def fail_once(run: JobRun) -> bool:
        return cancel(run) if run != first else Mock(side_effect=error)()

    monkeypatch.setattr(JobRun, "cancel", fail_once)
    messages = messages_of(act(staff, "cancel_runs", first, record(status=Status.PENDING)))

    assert [messages[0], messages[-1][: len(message)]] == ["1 run was cancelled.", message]


def test_failing_job(staff: Client) -> None:
    """A job that fails in this process does not end the request: its record has the error."""
    staff.post(CONFIRM, form_of(act(staff, "rerun_runs", record("outcome", argv=["outcome", "error"]), record())))

    assert {*JobRun.objects.values_list("command", "status")} >= {("outcome", "failed"), ("echo", "succeeded")}
    assert JobRun.objects.count() == 4


@pytest.mark.parametrize("action", ["cancel_runs", "rerun_runs"])
def test_too_many(staff: Client, monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    """An action takes a limited number of runs, also with all pages selected; beyond it, nothing is changed."""
    monkeypatch.setattr(selected_runs, "MAX_SELECTED", 2)
    runs = [record(status=Status.PENDING) for _ in range(3)]

    response = act(staff, action, runs[0], select_across=1)

    assert messages_of(response) == ["Select at most 2 runs. No run was changed."]
    assert JobRun.objects.filter(status=Status.PENDING).count() == 3


def test_reader_has_no_actions(sign_in: Callable[..., Client]) -> None:
    """Whoever may only see runs is offered no action."""
    reader = sign_in("view_jobrun")
    record()

    assert 'name="action"' not in reader.get(RUNS).content.decode()


@pytest.mark.parametrize(
    ("permission", "action"),
    [("view_jobrun", "cancel_runs"), ("run_job", "cancel_runs"), ("cancel_job", "rerun_runs")],
)
def test_action_without_its_permission(sign_in: Callable[..., Client], permission: str, action: str) -> None:
    """A forged action is refused with 403, and changes nothing."""
    reader = sign_in("view_jobrun", permission)

    response = act(reader, action, waiting := record(status=Status.PENDING))

    waiting.refresh_from_db()
    assert (response.status_code, waiting.status) == (403, Status.PENDING)


@pytest.mark.parametrize("permissions", [("view_jobrun", "cancel_job"), ("run_job",)])
def test_confirmation_without_its_permission(sign_in: Callable[..., Client], permissions: Any) -> None:
    """A forged confirmation is refused with 403."""
    values = {"key": uuid4(), "run": record().pk}

    assert sign_in(*permissions).post(CONFIRM, values).status_code == 403
    assert JobRun.objects.count() == 1


@pytest.mark.parametrize(
    "values", [{}, {"key": "x"}, {"key": "", "run": str(uuid4())}, {"key": str(uuid4()), "run": "\0"}]
)
def test_malformed_confirmation(staff: Client, values: Any) -> None:
    """A confirmation without a key or with other ids than those of runs is a bad request."""
    assert staff.post(CONFIRM, values).status_code == 400


@pytest.mark.parametrize("selected", ["x", "\0", "' OR 1=1", ""])
def test_malformed_selection(staff: Client, selected: str) -> None:
    """A selection of what is no run's id is a bad request."""
    record()

    assert act(staff, "cancel_runs", selected).status_code == 400


def test_confirmation_of_deleted_runs(staff: Client) -> None:
    """Runs that were deleted while the form was open are not started, and the others are."""
    form = form_of(act(staff, "rerun_runs", deleted := record(), record("outcome", argv=["outcome", "none"])))
    JobRun.objects.filter(pk=deleted.pk).delete()

    assert messages_of(staff.post(CONFIRM, form)) == ["1 run was started."]


def test_get_of_a_confirmation(staff: Client) -> None:
    """Only a POST starts runs."""
    assert staff.get(CONFIRM).status_code == 405


@pytest.mark.parametrize("path", [RUNS, CONFIRM])
def test_forged_post(path: str) -> None:
    """A POST without the token of a form is refused."""
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(User.objects.create_superuser("root"))

    values = {"action": "cancel_runs", "_selected_action": record(status=Status.PENDING).pk, "index": 0}
    assert browser.post(path, values).status_code == 403
    assert JobRun.objects.get().status == Status.PENDING


@pytest.mark.django_db(transaction=True)
def test_atomic_requests(staff: Client, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The actions run without the transaction of ATOMIC_REQUESTS, which would hide what other processes write."""
    from django.db import connection

    seen: list[bool] = []
    submit = InlineBackend.submit

    def observed(*args: Any) -> Any:
        seen.append(connection.in_atomic_block)
        return submit(*args)

    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    monkeypatch.setattr(InlineBackend, "submit", observed)
    staff.post(CONFIRM, form_of(act(staff, "rerun_runs", record())))

    assert seen == [False]
