"""Cancelling and rerunning from the page of a run."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db.models import JSONField, Value
from django.db.models.functions import Cast
from django.test import Client
from django.utils import timezone

from cloudrun_jobs import enqueue
from cloudrun_jobs.argv.redaction import HIDDEN
from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.exceptions import AccessDenied, JobNotDeployed, ServiceError, ServiceUnavailable
from cloudrun_jobs.models import JobRun, Status, TaskRun, Trigger
from cloudrun_jobs.runs import local_output
from tests.dashboard.conftest import SignIn
from tests.dashboard.job_pages import page, text_of, url
from tests.dashboard.run_pages import ALL, form_of, post, record_run
from tests.dashboard.start_pages import JOB, job_with


@pytest.fixture
def operator(sign_in: SignIn) -> Client:
    return sign_in(*ALL)


def failed_run(**values: Any) -> JobRun:
    """Record a run of one task that has failed."""
    run = record_run("echo", tasks=1, **{"status": Status.FAILED, "argv": ["echo", "--partner=7"], **values})
    TaskRun.objects.filter(run=run).update(status=Status.FAILED)
    return run


def test_pending_run_is_cancelled(operator: Client) -> None:
    """A run that has not been sent is cancelled at once, and the history of the admin names the user."""
    run = record_run(status=Status.PENDING)
    response = post(operator, "cancel", run)

    run.refresh_from_db()
    assert (run.status, response.redirect_chain) == (Status.CANCELLED, [(url("run", run.pk), 302)])
    assert "The run is cancelled." in text_of(response)
    entry = LogEntry.objects.get()
    assert (entry.user.get_username(), entry.object_id, entry.change_message) == (
        "mina",
        str(run.pk),
        "Cancelled.",
    )


@pytest.mark.parametrize("language", ["en", "ja"])
def test_history_and_log_do_not_depend_on_the_language(
    operator: Client, caplog: pytest.LogCaptureFixture, language: str
) -> None:
    """The history keeps its text, so that is English; the log names the user, and no HTTP API."""
    caplog.set_level("INFO", logger="cloudrun_jobs")
    run = record_run(status=Status.PENDING)
    operator.post(url("cancel", run.pk), headers={"accept-language": language})

    assert LogEntry.objects.get().change_message == "Cancelled."
    assert f"Run {run}: cancel by mina" in caplog.messages


def test_running_run_records_the_request(operator: Client) -> None:
    """The page of a run that is at work says that it ends later."""
    run = record_run(status=Status.RUNNING, started_at=timezone.now())
    text = text_of(post(operator, "cancel", run))

    run.refresh_from_db()
    assert run.cancel_requested_at is not None
    assert "The cancellation is requested." in text
    assert "A cancellation was requested at" in text


def test_local_run_is_cancelled(
    operator: Client, cloud: Any, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """A run of `run --local` is cancelled without a call to Google."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    local_output.Recorder("echo-production-abcdef").close()
    run = record_run(status=Status.RUNNING, execution="echo-production-abcdef", started_at=timezone.now())
    emulator.calls.clear()

    assert "The cancellation is requested." in text_of(post(operator, "cancel", run))
    assert emulator.calls == {}


@pytest.mark.parametrize(
    ("status", "notice"),
    [
        (Status.SUCCEEDED, "The run was not cancelled: it has ended with the status “succeeded”."),
        (Status.CANCELLED, "The run had already been cancelled."),
    ],
)
def test_cancelling_a_run_that_has_ended(operator: Client, status: Status, notice: str) -> None:
    """A form whose run has ended meanwhile changes nothing."""
    run = record_run(status=status)

    assert notice in text_of(post(operator, "cancel", run))
    run.refresh_from_db()
    assert (run.status, LogEntry.objects.count()) == (status, 0)


@pytest.mark.parametrize("name", ["cancel", "rerun"])
def test_form_of_a_deleted_run(operator: Client, name: str) -> None:
    """The list of the runs says that the record is gone."""
    response = post(operator, name, uuid4(), key=uuid4())

    assert "Nothing was done: the record of the run has been deleted." in text_of(response)
    assert response.redirect_chain == [(url("runs"), 302)]


@pytest.mark.parametrize("command", ["gone", "日本", "a/b", "migrate"])
def test_run_of_a_command_that_is_gone_is_cancelled(operator: Client, command: str) -> None:
    """Cancelling needs no command, and rerunning says that there is none."""
    run = record_run(command, status=Status.PENDING)

    assert "The run is cancelled." in text_of(post(operator, "cancel", run))
    assert f"the command “{command}” no longer exists" in text_of(post(operator, "rerun", run, key=uuid4()))
    assert JobRun.objects.count() == 1


@pytest.mark.parametrize(
    ("error", "notice"),
    [
        (
            AccessDenied("no permission", hint="Grant a role."),
            "rejected the request (AccessDenied). no permission.",
        ),
        (ServiceUnavailable("<b>\x1b"), "(ServiceUnavailable). Try again later. <b>\\x1b"),
        (JobNotDeployed("gone"), "Cloud Run has no such job. Run “manage.py sync_cloudrun_jobs”, then try again."),
    ],
)
@pytest.mark.parametrize("name", ["cancel", "rerun"])
def test_error_of_the_service_is_a_notice(
    operator: Client, monkeypatch: pytest.MonkeyPatch, name: str, error: ServiceError, notice: str
) -> None:
    """The notice has the kind of the error and what to do; nothing is recorded as done."""

    def fail(*args: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(JobRun, "cancel", fail)
    monkeypatch.setattr(enqueue, "request_run_argv", fail)
    run = record_run(status=Status.RUNNING, started_at=timezone.now())
    response = post(operator, name, run, key=uuid4())

    assert notice in text_of(response)
    assert LogEntry.objects.count() == 0


@pytest.mark.parametrize("error", [RuntimeError("\x1bno partners"), SystemExit("\x1bno partners")])
def test_rerun_of_a_job_whose_parser_fails(operator: Client, error: BaseException) -> None:
    """What the code of a job raises is a notice, and nothing is started."""
    run = record_run(JOB)
    with job_with(Mock(side_effect=error)):
        text = text_of(post(operator, "rerun", run, key=uuid4()))

    assert rf"The request failed ({type(error).__name__}). \x1bno partners" in text
    assert JobRun.objects.count() == 1


def test_cancellation_that_is_recorded_and_not_sent(operator: Client) -> None:
    """The notice says what has become of the request if its backend is no longer in the settings."""
    run = record_run(status=Status.SENT, execution="e", backend="nope")

    text = text_of(post(operator, "cancel", run))
    assert "The cancellation is recorded, but was not sent. The request failed (InvalidSettings)." in text
    assert "A cancellation was requested at" in text


@pytest.mark.parametrize("name", ["cancel", "rerun"])
def test_result_that_cannot_be_decoded(operator: Client, name: str) -> None:
    """Actions do not read the result of a run."""
    run = record_run("echo", status=Status.PENDING)
    JobRun.objects.filter(pk=run.pk).update(result=Cast(Value("9" * 5000), JSONField()))

    assert "notice-success" in post(operator, name, run, key=uuid4()).content.decode()


@pytest.mark.django_db(transaction=True)
def test_job_that_is_not_deployed(operator: Client, cloud: Any) -> None:
    """A rerun that Cloud Run rejects is a notice on the page of the run."""
    run = record_run("echo")
    response = post(operator, "rerun", run, key=uuid4())

    assert response.redirect_chain == [(url("run", run.pk), 302)]
    assert "Cloud Run has no such job." in text_of(response)
    assert JobRun.objects.exclude(pk=run.pk).get().reason == "not_sent"


def test_rerun_starts_one_run(operator: Client) -> None:
    """The new run has the recorded arguments and names its user; a double submit starts no other."""
    run = record_run("echo", argv=["echo", "--partner=7", "a b"])
    fields = form_of(page(operator, "run", run.pk), "rerun")
    first, second = (post(operator, "rerun", run, **fields) for _ in range(2))

    new = JobRun.objects.exclude(pk=run.pk).get()
    assert (new.argv, new.trigger, new.requested_by) == (run.argv, Trigger.MANUAL, "mina")
    assert first.redirect_chain == second.redirect_chain == [(url("run", new.pk), 302)]
    assert "The run is started." in text_of(first)
    assert "This form had already started this run. No other run was started." in text_of(second)
    assert [entry.change_message for entry in LogEntry.objects.all()] == ["Rerun."]


def test_another_form_starts_another_run(operator: Client) -> None:
    """The key of a form is its own."""
    run = record_run("echo")
    forms = [form_of(page(operator, "run", run.pk), "rerun") for _ in range(2)]
    for fields in forms:
        post(operator, "rerun", run, **fields)

    assert JobRun.objects.exclude(pk=run.pk).count() == 2


def test_key_is_that_of_the_user(sign_in: SignIn) -> None:
    """Two users who send the same key start two runs."""
    run, key = record_run("echo"), uuid4()
    for name in ("mina", "yuki"):
        post(sign_in(*ALL, name=name), "rerun", run, key=key)

    assert JobRun.objects.exclude(pk=run.pk).count() == 2


@pytest.mark.parametrize("key", ["", "x", "\x00", "\ufffd", "a" * 10_000, "' OR 1=1"])
def test_form_without_a_key_starts_nothing(operator: Client, key: str) -> None:
    """A form that is not one of the page is refused."""
    run = record_run("echo")

    assert "the form was incomplete" in text_of(post(operator, "rerun", run, key=key))
    assert JobRun.objects.count() == 1


def test_what_failed_is_rerun_once(operator: Client) -> None:
    """The new run repeats the failed tasks; a double submit, and a later form, start no other."""
    run = failed_run()
    fields = form_of(page(operator, "run", run.pk), "rerun-failed")
    first, second = (post(operator, "rerun", run, **fields) for _ in range(2))

    new = JobRun.objects.exclude(pk=run.pk).get()
    assert (new.rerun_of, new.result["partner"]) == (run, 7)
    assert first.redirect_chain == second.redirect_chain == [(url("run", new.pk), 302)]
    later = post(operator, "rerun", run, key=uuid4(), failed_only="1")
    assert "another run already repeats the failed tasks" in text_of(later)
    assert "rerun-failed" not in page(operator, "run", run.pk).content.decode()
    assert JobRun.objects.count() == 2


@pytest.mark.parametrize(
    ("values", "fields", "notice"),
    [
        ({"argv": None}, {}, "the arguments of the run were not recorded"),
        ({"argv": {"a": 1}}, {}, "the arguments of the run were not recorded"),
        ({"argv": ["echo", f"--note={HIDDEN}"]}, {}, "secret options are not recorded"),
        ({"argv": ["echo", "--gone"]}, {}, "the command rejects the arguments"),
        ({"status": Status.RUNNING}, {"failed_only": "1"}, "the run has not ended"),
        ({}, {"failed_only": "1"}, "no task of the run has started"),
    ],
)
def test_run_that_cannot_be_repeated(
    operator: Client, values: dict[str, Any], fields: dict[str, str], notice: str
) -> None:
    """The notice says why, and nothing is started."""
    run = record_run("echo", **values)

    assert notice in text_of(post(operator, "rerun", run, key=uuid4(), **fields))
    assert JobRun.objects.count() == 1


def test_key_that_was_used_for_other_arguments(operator: Client) -> None:
    """The key of one run's form does not repeat another run."""
    key = uuid4()
    for partner in (7, 8):
        response = post(operator, "rerun", record_run("echo", argv=["echo", f"--partner={partner}"]), key=key)

    assert "This form has already started a run, with other values." in text_of(response)
    assert JobRun.objects.count() == 3


def test_job_that_fails_in_this_process(operator: Client) -> None:
    """In the environments "local" and "test" the job runs in the request: its failure is on its page."""
    run = record_run("outcome", argv=["outcome", "error"])
    response = post(operator, "rerun", run, key=uuid4())

    assert "ZeroDivisionError division by zero" in text_of(response)


@pytest.mark.parametrize(("name", "status"), [("cancel", Status.PENDING), ("rerun", Status.FAILED)])
def test_actions_in_the_admin(operator: Client, name: str, status: Status) -> None:
    """The page of the admin has the same forms, and shows the same notices."""
    run = record_run("echo", status=status, error_message="x" * 3000)
    shown = operator.get(f"/admin/cloudrun_jobs/jobrun/{run.pk}/change/")
    target = f"/admin/cloudrun_jobs/jobrun/{run.pk}/{name}/"
    response = operator.post(target, form_of(shown, name), follow=True)

    assert f'<form method="post" action="{target}"' in shown.content.decode()
    assert f'href="/admin/cloudrun_jobs/jobrun/{run.pk}/text/error/"' in shown.content.decode()
    assert response.redirect_chain[0][0].startswith("/admin/cloudrun_jobs/jobrun/")
    assert 'class="success"' in response.content.decode()
    assert len(operator.get(f"/admin/cloudrun_jobs/jobrun/{run.pk}/text/error/").content) == 3000


@pytest.mark.parametrize("name", ["cancel", "rerun"])
@pytest.mark.parametrize("method", ["get", "head", "put", "delete", "options"])
def test_actions_are_posted(operator: Client, name: str, method: str) -> None:
    """No other request carries out an action."""
    run = record_run("echo", status=Status.PENDING)

    assert getattr(operator, method)(url(name, run.pk)).status_code == 405
    run.refresh_from_db()
    assert (run.status, JobRun.objects.count()) == (Status.PENDING, 1)


@pytest.mark.parametrize("name", ["cancel", "rerun"])
def test_forged_post_is_refused(operator: Client, name: str) -> None:
    """A form without the CSRF token changes nothing."""
    run = record_run("echo", status=Status.PENDING)
    forged = Client(enforce_csrf_checks=True)
    forged.force_login(User.objects.get())

    assert forged.post(url(name, run.pk), {"key": uuid4()}).status_code == 403
    run.refresh_from_db()
    assert (run.status, JobRun.objects.count()) == (Status.PENDING, 1)


@pytest.mark.parametrize(
    ("name", "permissions"),
    [
        ("cancel", ("view_jobrun", "run_job")),
        ("rerun", ("view_jobrun", "cancel_job")),
        ("text", ("run_job", "cancel_job")),
        ("run", ("run_job", "cancel_job")),
        ("runs", ("run_job", "cancel_job")),
    ],
)
def test_permissions(sign_in: SignIn, name: str, permissions: tuple[str, ...]) -> None:
    """Each page and action needs its own permission."""
    run, client = record_run("echo", status=Status.PENDING), sign_in(*permissions)
    arguments = {"runs": (), "text": (run.pk, "arguments")}.get(name, (run.pk,))
    response = (
        client.post(url(name, *arguments)) if name in {"cancel", "rerun"} else client.get(url(name, *arguments))
    )

    assert response.status_code == 403
    run.refresh_from_db()
    assert (run.status, JobRun.objects.count()) == (Status.PENDING, 1)


def test_run_with_long_arguments(operator: Client) -> None:
    """Arguments of any length are repeated."""
    run = record_run("echo", argv=["echo", f"--note={'x' * 30_000}"])
    fields = form_of(page(operator, "run", run.pk), "rerun")
    post(operator, "rerun", run, **fields)

    assert JobRun.objects.exclude(pk=run.pk).get().argv == run.argv


def test_pending_cancellation_is_requested_once(operator: Client) -> None:
    """The history says that it was requested, and the page has no second button for it."""
    run = record_run(status=Status.RUNNING, started_at=timezone.now())
    first, _second = (post(operator, "cancel", run) for _ in range(2))

    assert [entry.change_message for entry in LogEntry.objects.all()] == ["Cancellation requested."]
    assert 'id="cancel"' not in first.content.decode()


def test_failed_cancellation_may_be_repeated(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the service rejects the request, which is recorded, the page has the button again."""
    failing = Mock(side_effect=ServiceUnavailable("later"))
    monkeypatch.setattr("cloudrun_jobs.runs.handle.operation", failing)
    run = record_run(status=Status.RUNNING, started_at=timezone.now(), execution="echo-x7k2p")
    first, second = (post(operator, "cancel", run) for _ in range(2))

    assert ['id="cancel"' in each.content.decode() for each in (first, second)] == [True, True]
    assert [entry.change_message for entry in LogEntry.objects.all()] == ["Cancellation requested."]
