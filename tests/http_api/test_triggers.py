"""`POST run/<command>/`: jobs that run during the request, and the ticks of Cloud Scheduler."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import OperationalError, connections
from django.test import Client

from cloudrun_jobs import conf
from cloudrun_jobs.checks import check_settings
from cloudrun_jobs.emulator.tokens import Tokens
from cloudrun_jobs.exceptions import InvalidJob, InvalidSettings
from cloudrun_jobs.execution import deadlines, heartbeat, termination
from cloudrun_jobs.execution.attempt import Attempt
from cloudrun_jobs.http import certificates
from cloudrun_jobs.models import JobRun, Status, Trigger
from cloudrun_jobs.spec import Schedule
from tests.http_api.conftest import configured
from tests.http_api.test_oidc import AUDIENCE, EMAIL, ISSUER, Server, server, signed, tokens
from tests.jobs.management.commands import echo
from tests.waiting import wait_for

__all__ = ["server", "tokens"]

pytestmark = pytest.mark.django_db(transaction=True)

NO_EFFECT = {"X-CloudScheduler": "true"}


@pytest.fixture(autouse=True)
def service(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Declare attributes of the job, which runs in the web service."""

    def declare(**attributes: Any) -> None:
        for name, value in attributes.items():
            monkeypatch.setattr(echo.Command, name, value, raising=False)

    declare(target="service")
    return declare


@pytest.fixture
def deliver(http: Client, settings: Any, server: Server, tokens: Tokens) -> Callable[..., Any]:
    """Deliver a tick as Cloud Scheduler does; return the response."""
    server.body = tokens.public_keys()
    oidc = {"audience": AUDIENCE, "emails": [EMAIL], "issuer": ISSUER, "certs_url": server.url}
    settings.CLOUDRUN_JOBS = configured(OIDC=oidc)
    certificates.certificates.cache_clear()

    def deliver(due: datetime | str | None, body: bytes = b"", **headers: str) -> Any:
        given = {**NO_EFFECT, "Authorization": f"Bearer {signed(tokens)}", "X-CloudScheduler-JobName": "echo-test"}
        if due is not None:
            given["X-CloudScheduler-ScheduleTime"] = due if isinstance(due, str) else due.isoformat()
        options = {"content_type": "application/octet-stream", "headers": {**given, **headers}}
        return http.generic("POST", "/cloudrun_jobs/run/echo/", body, **options)

    return deliver


def minutes_ago(count: int) -> datetime:
    return datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=count)


@pytest.mark.parametrize("body", [b"", b"{}", b' {"partner": 7} '], ids=["empty", "object", "options"])
@pytest.mark.parametrize("content_type", ["application/octet-stream", "application/json", "text/plain", ""])
def test_job_runs_and_answers(call: Any, body: bytes, content_type: str) -> None:
    """The response has the result; the run's record has the requester and the arguments."""
    response = call("POST", "run/echo/", data=body, content_type=content_type)

    partner = 7 if b"partner" in body else None
    assert (response.status_code, response.json()) == (
        200,
        {"status": "success", "result": {"words": [], "partner": partner, "note": None}},
    )
    run = JobRun.objects.get()
    assert (run.status, run.trigger, run.requested_by) == (Status.SUCCEEDED, Trigger.HTTP, "token all")
    assert run.argv == ["echo", "--partner=7"] if partner else ["echo"]
    assert response["Location"] == f"/cloudrun_jobs/jobs/{run.pk}/"


def test_failure_has_no_traceback(call: Any, service: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A failed run is a 500 with the message; the traceback is in the log and in the record."""

    def run(self: Any, *args: Any, **options: Any) -> None:
        raise ValueError("the partner is unknown")

    service(run=run)
    response = call("POST", "run/echo/")

    assert (response.status_code, response.json()) == (
        500,
        {"status": "error", "error": "the partner is unknown"},
    )
    assert JobRun.objects.get().status == Status.FAILED
    assert any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError()], ids=["exit", "cancelled"])
def test_no_exception_leaves_the_view(call: Any, service: Any, error: BaseException) -> None:
    """An exception that would end a process must not end a thread of the server."""

    async def run(self: Any, *args: Any, **options: Any) -> None:
        raise error

    service(run=run)

    response = call("POST", "run/echo/")

    messages = {
        SystemExit: "The job called sys.exit(3).",
        asyncio.CancelledError: "The coroutine of run() was cancelled.",
    }
    assert (response.status_code, response.json()["error"]) == (500, messages[type(error)])


def test_async_job(call: Any, service: Any) -> None:
    """An async run() is a job like any other."""

    async def run(self: Any, *args: Any, **options: Any) -> dict[str, int]:
        await asyncio.sleep(0)
        return {"processed": 100}

    service(run=run)

    assert call("POST", "run/echo/").json()["result"] == {"processed": 100}


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("run/echo/", {"words": ["a"]}, 422, "invalid_options"),
        ("run/echo/", {"partner": "seven"}, 422, "invalid_options"),
        ("run/echo/", {"test_mode": True}, 422, "invalid_options"),
        ("run/echo/", [], 400, "invalid_json"),
        ("run/walk/", {}, 404, "not_found"),
        ("run/migrate/", {}, 404, "not_found"),
        ("run/nothing/", {}, 404, "not_found"),
        (
            "run/echo/",
            {"args": ["echo", "--note=x"], "schedule": "echo-test|* * * * *|Etc/UTC"},
            422,
            "invalid_options",
        ),
    ],
)
def test_bad_request_runs_nothing(call: Any, path: str, body: Any, status: int, code: str) -> None:
    response = call("POST", path, data=json.dumps(body))

    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert not JobRun.objects.exists()


@pytest.mark.parametrize(("token", "status"), [("", 401), ("reader", 403), ("walk only", 403), ("echo only", 200)])
def test_trigger_needs_the_scope_and_the_command(call: Any, token: str, status: int) -> None:
    assert call("POST", "run/echo/", token=token).status_code == status


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "jobs/"), ("GET", "run/"), ("POST", "jobs/echo/")], ids=["read", "list", "start"]
)
def test_id_token_runs_triggers_and_nothing_else(
    deliver: Any, http: Client, tokens: Tokens, method: str, path: str
) -> None:
    headers = {"Authorization": f"Bearer {signed(tokens)}"}
    response = http.generic(method, f"/cloudrun_jobs/{path}", b"", headers=headers)

    assert (deliver(None).status_code, response.status_code) == (200, 403)


def test_tick_is_recorded(deliver: Any) -> None:
    """The record has the Scheduler job, the due time and the account."""
    due = minutes_ago(1)
    deliver(due)

    run = JobRun.objects.get()
    assert (run.trigger, run.schedule, run.scheduled_for) == (Trigger.SCHEDULE, "echo-test", due)
    assert run.requested_by == EMAIL


def test_repeated_delivery_gets_the_recorded_answer(deliver: Any) -> None:
    """A tick that succeeded is not run again; the next tick is."""
    due = minutes_ago(2)
    first, again, later = deliver(due), deliver(due), deliver(due + timedelta(minutes=1))

    assert again.json() == {**first.json(), "duplicate": True}
    assert (again.status_code, later.json()) == (200, first.json())
    assert JobRun.objects.count() == 2


def test_failed_tick_runs_again_until_it_succeeds(deliver: Any, service: Any) -> None:
    """Cloud Scheduler's retry is another run; later deliveries get its response."""
    outcomes = iter([ZeroDivisionError("first"), ZeroDivisionError("second")])

    def run(self: Any, *args: Any, **options: Any) -> str:
        for error in outcomes:
            raise error
        return "third"

    service(run=run)
    due = minutes_ago(1)
    answers = [deliver(due) for _ in range(5)]

    assert [answer.status_code for answer in answers] == [500, 500, 200, 200, 200]
    assert [answer.json().get("duplicate") for answer in answers] == [None, None, None, True, True]
    assert JobRun.objects.filter(schedule="echo-test").count() == 3
    assert JobRun.objects.exclude(scheduled_for=None).get().status == Status.SUCCEEDED


def test_cancelled_tick_does_not_run_again(deliver: Any) -> None:
    """Cloud Scheduler's retry would undo a cancellation."""
    due = minutes_ago(1)
    deliver(due)
    JobRun.objects.update(status=Status.CANCELLED, error_message="The run was cancelled.")

    again = deliver(due)

    assert (again.status_code, again.json()["error"], again.json()["duplicate"]) == (
        500,
        "The run was cancelled.",
        True,
    )
    assert JobRun.objects.count() == 1


def test_delivery_during_the_run_is_unavailable(deliver: Any) -> None:
    """For Cloud Scheduler, a 2xx would mean that the work is done."""
    due = minutes_ago(1)
    deliver(due)
    JobRun.objects.update(status=Status.RUNNING, finished_at=None)

    again = deliver(due)

    assert (again.status_code, again["Retry-After"]) == (503, "30")
    assert JobRun.objects.count() == 1


def test_tick_of_another_command_is_another_tick(deliver: Any) -> None:
    """The same Scheduler job may have been pointed at another command."""
    due = minutes_ago(1)
    JobRun.objects.create(
        command="walk", environment="test", schedule="echo-test", scheduled_for=due, status=Status.SUCCEEDED
    )

    assert "duplicate" not in deliver(due).json()


def test_manual_start_does_not_use_up_the_next_tick(deliver: Any) -> None:
    """A run started by hand has the time of the next tick, and has ended when that tick is due."""
    due = minutes_ago(1)
    by_hand = deliver(due)
    JobRun.objects.update(created_at=due - timedelta(minutes=10))

    answers = [deliver(due), deliver(due)]

    assert by_hand.json() == answers[0].json()
    assert answers[1].json()["duplicate"] is True
    assert JobRun.objects.filter(schedule="echo-test").count() == 2


def test_manual_start_is_repeated_as_a_duplicate(deliver: Any) -> None:
    """Until the next tick is due, a second start by hand is a duplicate."""
    due = datetime.now(UTC) + timedelta(minutes=5)

    assert [deliver(due).json().get("duplicate") for _ in range(2)] == [None, True]


def test_deliveries_without_a_time_are_independent(deliver: Any) -> None:
    """Schedules such as "every 5 minutes" have no due times."""
    assert [deliver(None).json().get("duplicate") for _ in range(2)] == [None, None]


def test_tick_headers_of_a_token_are_ignored(call: Any) -> None:
    """The headers are trusted only with an ID token."""
    headers = {"X-CloudScheduler-JobName": "echo-test", "X-CloudScheduler-ScheduleTime": "2026-01-01T00:00:00Z"}
    answers = [call("POST", "run/echo/", headers=headers) for _ in range(2)]

    assert [answer.json().get("duplicate") for answer in answers] == [None, None]
    assert not JobRun.objects.exclude(scheduled_for=None).exists()


EXTREME = ["0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00"]


@pytest.mark.parametrize("due", ["yesterday", "2026-01-01", "2026-01-01T00:00:00", "", *EXTREME])
def test_invalid_tick_is_refused(deliver: Any, due: str) -> None:
    assert deliver(due).status_code == 400
    assert not JobRun.objects.exists()


@pytest.mark.parametrize("name", ["a b", "", "x" * 300, "projects/acme/locations/x/jobs/echo"])
def test_invalid_scheduler_job_is_refused(deliver: Any, name: str) -> None:
    assert deliver(minutes_ago(1), **{"X-CloudScheduler-JobName": name}).status_code == 400


def test_arguments_of_a_schedule_need_no_permission(deliver: Any, service: Any) -> None:
    """A Scheduler job sends what the class declares, in the form that the sync writes."""
    service(schedule=[Schedule("* * * * *", args={"partner": 8})], http_options=())
    body = {"args": ["echo", "--partner=8"], "schedule": "echo-test-1|* * * * *|UTC"}

    answer = deliver(minutes_ago(1), json.dumps(body).encode())

    assert answer.json()["result"]["partner"] == 8


def test_skipped_run(call: Any, service: Any) -> None:
    """A skipped run is not a failure."""
    started, may_end, answers = threading.Event(), threading.Event(), []

    def run(self: Any, *args: Any, **options: Any) -> None:
        started.set()
        may_end.wait(30)

    service(run=run, http_options=())
    first = thread(lambda: answers.append(call("POST", "run/echo/")))
    assert started.wait(30)
    second = call("POST", "run/echo/")
    may_end.set()
    first.join()

    assert (second.status_code, second.json()) == (200, {"status": "skipped", "result": None})
    assert answers[0].json() == {"status": "success", "result": None}


def in_thread(work: Callable[[], Any]) -> Any:
    """Return the result of a call in a thread, which no signal reaches."""
    found: list[Any] = []
    thread(lambda: found.append(work())).join(60)
    return found[0]


def thread(work: Callable[[], Any]) -> threading.Thread:
    """Return a started thread that closes its connections, as a server does after a request."""

    def call() -> None:
        try:
            work()
        finally:
            connections.close_all()

    started = threading.Thread(target=call)
    started.start()
    return started


@pytest.mark.parametrize("method", ["progress", "check_lease"])
def test_sigterm_of_the_server_is_raised_in_the_job(call: Any, service: Any, method: str) -> None:
    """The job's next report raises JobInterrupted, once, and the job cleans up; the server continues."""
    steps: list[str] = []

    def report(job: Any) -> None:
        job.progress(1) if method == "progress" else job.check_lease()

    def run(self: Any, *args: Any, **options: Any) -> None:
        report(self)
        for each in termination._active:
            each.request()
        try:
            report(self)
        finally:
            report(self)
            steps.append("cleaned up")

    service(run=run)
    answer = in_thread(lambda: call("POST", "run/echo/"))

    assert (answer.status_code, steps) == (500, ["cleaned up"])
    assert JobRun.objects.get().reason == "interrupted"


def test_timeout_is_raised_in_the_job(call: Any, service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cloud Scheduler has given up by then, and delivers the tick again."""

    def run(self: Any, *args: Any, **options: Any) -> None:
        termination._active[-1]._times_out_at = 0
        self.progress(1)

    service(run=run)
    answer = in_thread(lambda: call("POST", "run/echo/"))

    assert answer.status_code == 500
    assert JobRun.objects.get().reason == "timeout"


def test_lost_lock_is_raised_in_the_job(call: Any, service: Any) -> None:
    """The next report raises LeaseLost, once: the cleanup may report as well."""
    steps: list[str] = []

    def run(self: Any, *args: Any, **options: Any) -> None:
        self.progress(1)
        self.lease._keeper.mark_lost("the test took it")
        try:
            self.progress(2)
        finally:
            self.progress(3)
            steps.append("cleaned up")

    service(run=run)
    answer = in_thread(lambda: call("POST", "run/echo/"))

    assert (answer.status_code, steps) == (500, ["cleaned up"])
    assert JobRun.objects.get().reason == "lock_lost"


def test_cancellation_is_raised_in_the_job(
    call: Any, service: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No service sends SIGTERM: the heartbeat reads the cancellation from the record."""
    monkeypatch.setattr(heartbeat, "PROGRESS_INTERVAL", 0.02)
    monkeypatch.setattr(heartbeat, "HEARTBEAT_INTERVAL", 0.02)
    started, answers = threading.Event(), []

    def run(self: Any, *args: Any, **options: Any) -> None:
        started.set()
        wait_for(lambda: self.check_lease())

    service(run=run)
    request = thread(lambda: answers.append(call("POST", "run/echo/")))
    assert started.wait(30)
    cancelled = call("POST", f"jobs/{JobRun.objects.get().pk}/cancel/")
    request.join(60)

    assert (cancelled.status_code, answers[0].status_code) == (202, 500)
    assert (JobRun.objects.get().status, answers[0].json()["status"]) == (Status.CANCELLED, "error")


def hold_the_only_slot(service: Any, call: Any) -> tuple[threading.Thread, threading.Event]:
    """Start a run that holds the lock of the job until the event is set."""
    started, may_end = threading.Event(), threading.Event()

    def run(self: Any, *args: Any, **options: Any) -> None:
        started.set()
        may_end.wait(30)

    service(run=run)
    holder = thread(lambda: call("POST", "run/echo/", data=b'{"partner": 1}'))
    assert started.wait(30)
    return holder, may_end


@pytest.mark.parametrize("how", ["SIGTERM", "cancellation", "timeout"])
def test_interrupt_ends_the_wait_for_a_lock(
    call: Any, service: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The job does not begin once the slot is free."""
    monkeypatch.setattr(heartbeat, "PROGRESS_INTERVAL", 0.02)
    monkeypatch.setattr(heartbeat, "HEARTBEAT_INTERVAL", 0.02)
    holder, may_end = hold_the_only_slot(service, call)
    answers: list[Any] = []
    waiting = thread(lambda: answers.append(call("POST", "run/echo/", data=b'{"partner": 2}')))
    wait_for(lambda: len(termination._active) == 2)
    run = wait_for(lambda: JobRun.objects.filter(argv=["echo", "--partner=2"]).first())
    if how == "cancellation":
        assert call("POST", f"jobs/{run.pk}/cancel/").status_code == 202
    elif how == "timeout":
        termination._active[1]._times_out_at = 0
    else:
        termination._active[1].request()
    waiting.join(30)
    may_end.set()
    holder.join(30)

    assert answers[0].status_code == 500
    run.refresh_from_db()
    reasons = {"SIGTERM": "interrupted", "cancellation": "cancelled", "timeout": "timeout"}
    assert run.reason == reasons[how]


def test_shutdown_before_the_timeout_is_no_timeout(call: Any, service: Any) -> None:
    """The time is measured here, and not by Cloud Run."""

    def run(self: Any, *args: Any, **options: Any) -> None:
        termination._active[-1].request()
        self.progress(1)

    service(run=run, timeout=10)

    assert in_thread(lambda: call("POST", "run/echo/")).status_code == 500
    assert JobRun.objects.get().reason == "interrupted"


def test_outcome_that_cannot_be_recorded_is_answered(
    call: Any, service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work is done, so Cloud Scheduler must not deliver the tick again."""

    def fail(self: Any, *args: Any) -> None:
        raise OperationalError("the connection was lost")

    monkeypatch.setattr(Attempt, "_record", fail)
    monkeypatch.setattr(deadlines, "RECORD_END_LIMIT_SECONDS", 0)

    assert call("POST", "run/echo/").json()["status"] == "success"


def test_signal_handler_is_installed_by_the_main_thread_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """`django.setup()` may run in another thread, where Python refuses."""
    monkeypatch.setattr(signal, "getsignal", lambda number: print)

    assert in_thread(lambda: [termination.follow_server()]) == [None]


def test_invalid_job_hides_no_other(call: Any, service: Any) -> None:
    """It is not listed, and a request for it gets an error in the usual format."""
    service(timeout=-1)

    assert [each["command"] for each in call("GET", "run/").json()["endpoints"]] == ["in_request"]
    for path in ("run/echo/", "jobs/echo/"):
        response = call("POST", path)
        assert (response.status_code, response.json()["error"]["code"]) == (500, "invalid_job")


def test_invalid_schedule_hides_no_other(deliver: Any, service: Any) -> None:
    schedules = [Schedule("* * * * *", args={"partner": "x"}), Schedule("* * * * *", args={"partner": 8})]
    service(schedule=schedules, http_options=())
    body = {"args": ["echo", "--partner=8"], "schedule": "echo-test-2|* * * * *|UTC"}

    assert deliver(minutes_ago(1), json.dumps(body).encode()).status_code == 200


@pytest.mark.parametrize(("method", "path"), [("GET", "run/?x=1"), ("POST", "run/echo/?x=1")])
def test_unknown_parameter_is_refused(call: Any, method: str, path: str) -> None:
    assert call(method, path).json()["error"]["code"] == "invalid_query"


def test_list_of_triggers(call: Any, service: Any) -> None:
    """The list has each job's help, options and schedules, and whether it has a dry run."""
    service(schedule="0 9 * * *", time_zone="Asia/Seoul")

    endpoints = call("GET", "run/").json()["endpoints"]

    assert [each["command"] for each in endpoints] == ["echo", "in_request"]
    assert endpoints[0] == {
        "command": "echo",
        "url": "/cloudrun_jobs/run/echo/",
        "help": "Return the options it was given",
        "options": {"partner": "", "note": ""},
        "schedules": [{"cron": "0 9 * * *", "time_zone": "Asia/Seoul"}],
        "dry_run": False,
        "test_mode": False,
    }
    assert call("GET", "run/", token="walk only").json() == {"endpoints": []}


@pytest.mark.parametrize(
    ("body", "variable", "expected"),
    [({}, "", False), ({"test_mode": True}, "", True), ({"test_mode": False}, "1", True), ({}, "0", False)],
)
def test_test_mode(
    call: Any, service: Any, monkeypatch: pytest.MonkeyPatch, body: Any, variable: str, expected: bool
) -> None:
    """The body or the environment variable sets it on the instance that runs."""

    def run(self: Any, *args: Any, **options: Any) -> bool:
        return bool(self.test_mode)

    monkeypatch.setenv(conf.TEST_MODE_VARIABLE, variable)
    service(run=run, test_mode=False)

    assert call("POST", "run/echo/", data=json.dumps(body)).json()["result"] is expected
    assert echo.Command.test_mode is False


@pytest.mark.parametrize("value", ["yes", 1, None, {}])
def test_invalid_test_mode_is_refused(call: Any, service: Any, value: Any) -> None:
    service(test_mode=False)
    response = call("POST", "run/echo/", data=json.dumps({"test_mode": value}))

    assert (response.status_code, list(response.json()["error"]["fields"])) == (422, ["test_mode"])


def test_invalid_test_mode_variable_is_refused(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt value must not turn a test run into a real one."""
    service(test_mode=False)
    monkeypatch.setenv(conf.TEST_MODE_VARIABLE, "true")

    with pytest.raises(InvalidSettings, match="CLOUDRUN_JOBS_TEST_MODE"):
        echo.Command().delay()
    assert [message.id for message in check_settings(None)] == ["cloudrun_jobs.E001"]


@pytest.mark.parametrize("declared", [True, None, "no"])
def test_test_mode_is_declared_as_false(service: Any, declared: Any) -> None:
    service(test_mode=declared)

    with pytest.raises(InvalidJob, match="test_mode: expected False"):
        echo.Command().delay()


@pytest.mark.parametrize(
    ("declared", "is_refused"),
    [
        ({"timeout": 1800}, False),
        ({"timeout": 1801}, True),
        ({"timeout": 60, "attempt_deadline": 60}, False),
        ({"timeout": 61, "attempt_deadline": 60}, True),
        ({"attempt_deadline": 1801}, True),
    ],
)
def test_job_that_outlives_the_delivery_is_refused(service: Any, declared: Any, is_refused: bool) -> None:
    """The hint says to run it as a job."""
    service(**declared)
    refusal = None
    try:
        assert echo.Command().spec
    except InvalidJob as error:
        refusal = error

    assert (refusal is not None) == is_refused
    assert ("Run it as a job" in str(refusal)) == is_refused


@pytest.mark.parametrize(
    ("declared", "seconds"),
    [({"timeout": 900}, 900), ({"timeout": 5}, 15), ({"timeout": 60, "attempt_deadline": 100}, 100)],
)
def test_delivery_waits_for_the_job(service: Any, declared: Any, seconds: int) -> None:
    """Cloud Scheduler's default of three minutes would end the request of a longer job."""
    service(**declared)

    assert echo.Command().spec.delivery_deadline == timedelta(seconds=seconds)
