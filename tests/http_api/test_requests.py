"""Each request, its answer, and the rows that it writes."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from django.db.models import JSONField, Q, Value
from django.db.models.functions import Cast
from django.test import Client

from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.exceptions import JobInterrupted, LeaseLost
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.runs import local_output
from tests.http_api.conftest import configured
from tests.jobs.management.commands import echo

RUN = "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed"  # Of the fixture.
UNKNOWN = "00000000-0000-4000-8000-000000000000"
YEAR_0 = urlsafe_b64encode(b"0001-01-01T00:00:00+14:00 " + b"0" * 32).decode().rstrip("=")  # In UTC.
DEEP = '{"note": ' + "[" * 40 + "]" * 40 + "}"

# Method, path, what differs from an authorised request, status, the error's code, and the new rows.
REQUESTS: list[tuple[str, str, dict[str, Any], int, str | None, int]] = [
    ("GET", "jobs/", {}, 200, None, 0),
    ("GET", "jobs/", {"token": ""}, 401, "unauthenticated", 0),
    ("GET", "jobs/", {"token": "", "headers": {"x-token": "wrong"}}, 401, "unauthenticated", 0),
    ("GET", "jobs/", {"token": "", "headers": {"x-token": ""}}, 401, "unauthenticated", 0),
    (
        "GET",
        "jobs/",
        {"token": "", "headers": {"x-ingest-token": "the token named all"}},
        401,
        "unauthenticated",
        0,
    ),
    ("GET", "jobs/", {"token": "expired"}, 401, "unauthenticated", 0),
    ("GET", "jobs/", {"token": "bearer"}, 200, None, 0),
    ("GET", "jobs/", {"token": "", "headers": {"authorization": "Basic eDp5"}}, 401, "unauthenticated", 0),
    ("GET", "jobs/", {"token": "", "headers": {"authorization": "Bearer a.b.c"}}, 401, "unauthenticated", 0),
    ("GET", "jobs/", {"headers": {"authorization": "Bearer a, Bearer b"}}, 400, "invalid_request", 0),
    ("GET", "jobs/", {"headers": {"x-http-method-override": "POST"}}, 400, "invalid_request", 0),
    ("POST", "jobs/", {}, 405, "method_not_allowed", 0),
    ("DELETE", "jobs/", {}, 405, "method_not_allowed", 0),
    ("PUT", f"jobs/{RUN}/", {}, 405, "method_not_allowed", 0),
    ("GET", "jobs/?command=echo", {}, 200, None, 0),
    ("GET", "jobs/?command=echo", {"token": "walk only"}, 403, "forbidden", 0),
    ("GET", "jobs/?command=", {}, 400, "invalid_query", 0),
    ("GET", "jobs/?command=%00", {}, 400, "invalid_query", 0),
    ("GET", "jobs/?command=a&command=b", {}, 400, "invalid_query", 0),
    ("GET", "jobs/?status=succeeded", {}, 200, None, 0),
    ("GET", "jobs/?status=queued", {}, 400, "invalid_query", 0),
    ("GET", "jobs/?reason=timeout", {}, 200, None, 0),
    ("GET", "jobs/?trigger=http", {}, 200, None, 0),
    ("GET", "jobs/?trigger=magic", {}, 400, "invalid_query", 0),
    ("GET", "jobs/?since=2026-01-01T00:00:00Z", {}, 200, None, 0),
    ("GET", "jobs/?since=2026-01-01T00:00:00%2B09:00&until=2026-02-01T00:00:00Z", {}, 200, None, 0),
    ("GET", "jobs/?since=2026-01-01T00:00:00", {}, 400, "invalid_query", 0),
    ("GET", "jobs/?since=0001-01-01T00:00:00Z", {}, 400, "invalid_query", 0),
    ("GET", "jobs/?until=yesterday", {}, 400, "invalid_query", 0),
    ("GET", "jobs/?cursor=AAAA", {}, 400, "invalid_cursor", 0),
    ("GET", "jobs/?cursor=", {}, 400, "invalid_cursor", 0),
    ("GET", f"jobs/?cursor={YEAR_0}", {}, 400, "invalid_cursor", 0),
    ("GET", "jobs/?cursor=a&cursor=b", {}, 400, "invalid_cursor", 0),
    ("GET", "jobs/?cursor=AAAA&status=queued", {}, 400, "invalid_query", 0),
    ("GET", "jobs/?limit=5", {}, 400, "invalid_query", 0),
    ("GET", "jobs/?" + "&".join(f"a{number}=1" for number in range(1500)), {}, 400, "invalid_request", 0),
    ("GET", f"jobs/{RUN}/", {}, 200, None, 0),
    ("GET", f"jobs/{RUN.replace('-', '')}/", {}, 200, None, 0),
    ("GET", "jobs/echo-test-abcde/", {}, 200, None, 0),
    ("GET", f"jobs/{RUN}/", {"token": "reader"}, 200, None, 0),
    ("GET", f"jobs/{RUN}/", {"token": "walk only"}, 403, "forbidden", 0),
    ("GET", f"jobs/{RUN}/?wait=25", {}, 200, None, 0),
    ("GET", f"jobs/{RUN}/?wait=-1", {}, 400, "invalid_query", 0),
    ("GET", f"jobs/{RUN}/?wait=61", {}, 400, "invalid_query", 0),
    ("GET", f"jobs/{RUN}/?wait=nan", {}, 400, "invalid_query", 0),
    ("GET", f"jobs/{RUN}/?wait=1e1", {}, 400, "invalid_query", 0),
    ("GET", f"jobs/{UNKNOWN}/", {}, 404, "not_found", 0),
    ("GET", "jobs/unknown/", {}, 404, "not_found", 0),
    ("GET", "jobs/%00/", {}, 404, "not_found", 0),
    ("GET", "jobs/a%00b/events/", {}, 404, "not_found", 0),
    ("POST", "jobs/%00/cancel/", {}, 404, "not_found", 0),
    ("GET", "jobs/echo/events/", {}, 404, "not_found", 0),
    ("GET", "jobs/%2e%2e/", {}, 404, "not_found", 0),
    ("GET", "elsewhere/", {}, 404, "not_found", 0),
    ("GET", "jobs", {}, 404, "not_found", 0),
    ("POST", f"jobs/{RUN}/", {"token": "echo only"}, 405, "method_not_allowed", 0),
    ("GET", "elsewhere/", {"token": ""}, 401, "unauthenticated", 0),
    ("GET", "jobs/stats/", {}, 200, None, 0),
    ("GET", "jobs/stats/", {"token": "reader"}, 200, None, 0),
    ("GET", "jobs/stats/", {"token": ""}, 401, "unauthenticated", 0),
    ("GET", "jobs/stats/?command=echo", {}, 400, "invalid_query", 0),
    ("POST", "jobs/stats/", {}, 405, "method_not_allowed", 0),
    ("GET", "health/", {}, 200, None, 0),
    ("GET", "health/", {"token": "reader"}, 200, None, 0),
    ("GET", "health/", {"token": ""}, 401, "unauthenticated", 0),
    ("GET", "health/", {"token": "expired"}, 401, "unauthenticated", 0),
    ("GET", "health/?verbose=1", {}, 400, "invalid_query", 0),
    ("DELETE", "health/", {}, 405, "method_not_allowed", 0),
    ("GET", "schema/", {}, 200, None, 0),
    ("GET", "schema/", {"token": "walk only"}, 200, None, 0),
    ("GET", "schema/", {"token": ""}, 401, "unauthenticated", 0),
    ("GET", "schema/?format=yaml", {}, 400, "invalid_query", 0),
    ("PUT", "schema/", {}, 405, "method_not_allowed", 0),
    ("GET", "jobs/echo/", {}, 405, "method_not_allowed", 0),
    ("GET", "jobs/echo/", {"token": "walk only"}, 404, "not_found", 0),
    ("GET", "jobs/?since=2026-01-01T00:00:00%2B23:59", {}, 200, None, 0),
    ("GET", "jobs/?since=20260101T000000Z", {}, 400, "invalid_query", 0),
    ("POST", "jobs/echo/?partner=7", {}, 400, "invalid_query", 0),
    ("POST", "jobs/echo/", {"data": '{"partner": 7.0}'}, 202, None, 1),
    ("POST", "jobs/echo/", {"data": '{"partner": 7.5}'}, 422, "invalid_options", 0),
    ("POST", "jobs/echo/", {"data": '{"partner": "7"}'}, 202, None, 1),
    ("POST", "jobs/echo/", {"data": '{"partner": " 7"}'}, 422, "invalid_options", 0),
    ("POST", "jobs/echo/", {"data": '{"partner": null}'}, 202, None, 1),
    ("POST", "jobs/echo/", {}, 202, None, 1),
    ("POST", "jobs/echo/", {"data": "{}"}, 202, None, 1),
    ("POST", "jobs/echo/", {"data": '{"partner": 7, "note": "a b"}'}, 202, None, 1),
    ("POST", "jobs/echo/", {"token": "echo only"}, 202, None, 1),
    ("POST", "jobs/echo/", {"token": ""}, 401, "unauthenticated", 0),
    ("POST", "jobs/echo/", {"token": "reader"}, 403, "forbidden", 0),
    ("POST", "jobs/echo/", {"token": "walk only"}, 403, "forbidden", 0),
    ("POST", "jobs/unknown/", {}, 404, "not_found", 0),
    ("POST", "jobs/migrate/", {}, 404, "not_found", 0),
    ("POST", f"jobs/{RUN}/", {}, 405, "method_not_allowed", 0),
    ("POST", "jobs/echo/", {"data": '{"words": ["a"]}'}, 422, "invalid_options", 0),
    ("POST", "jobs/echo/", {"data": '{"verbosity": 3}'}, 422, "invalid_options", 0),
    ("POST", "jobs/echo/", {"data": '{"settings": "x"}'}, 422, "invalid_options", 0),
    ("POST", "jobs/echo/", {"data": '{"partner": "x"}'}, 422, "invalid_options", 0),
    ("POST", "jobs/echo/", {"data": '{"partner": true}'}, 422, "invalid_options", 0),
    ("POST", "jobs/echo/", {"data": '{"partner": [1]}'}, 422, "invalid_options", 0),
    ("POST", "jobs/echo/", {"data": '{"note": {"a": 1}}'}, 422, "invalid_options", 0),
    ("POST", "jobs/echo/", {"data": '{"note": "\\u0000"}'}, 422, "invalid_options", 0),
    ("POST", "jobs/echo/", {"data": '{"note": "\\ud800"}'}, 422, "invalid_options", 0),
    ("POST", "jobs/echo/", {"data": '{"note": "--settings=x"}'}, 202, None, 1),
    ("POST", "jobs/echo/", {"data": "{"}, 400, "invalid_json", 0),
    ("POST", "jobs/echo/", {"data": "[]"}, 400, "invalid_json", 0),
    ("POST", "jobs/echo/", {"data": '{"partner": 1, "partner": 2}'}, 400, "invalid_json", 0),
    ("POST", "jobs/echo/", {"data": '{"partner": NaN}'}, 400, "invalid_json", 0),
    ("POST", "jobs/echo/", {"data": '{"partner": 1e999}'}, 400, "invalid_json", 0),
    ("POST", "jobs/echo/", {"data": '{"partner": ' + "9" * 5000 + "}"}, 400, "invalid_json", 0),
    ("POST", "jobs/echo/", {"data": DEEP}, 400, "invalid_json", 0),
    ("POST", "jobs/echo/", {"data": "[" * 60_000}, 400, "invalid_json", 0),
    ("POST", "jobs/echo/", {"data": b'{"note": "\xff"}'}, 400, "invalid_json", 0),
    ("POST", "jobs/echo/", {"data": '{"note": "' + "x" * 70_000 + '"}'}, 413, "too_large", 0),
    ("POST", "jobs/echo/", {"data": "{}", "content_type": "text/plain"}, 415, "unsupported_media_type", 0),
    ("POST", "jobs/echo/", {"headers": {"idempotency-key": "k" * 101}}, 400, "invalid_request", 0),
    ("POST", "jobs/echo/", {"headers": {"idempotency-key": ""}}, 400, "invalid_request", 0),
    ("POST", "jobs/echo/", {"headers": {"idempotency-key": "한국"}}, 400, "invalid_request", 0),
    ("POST", f"jobs/{RUN}/rerun/", {}, 202, None, 1),
    ("POST", f"jobs/{RUN}/rerun/", {"token": "reader"}, 403, "forbidden", 0),
    ("POST", f"jobs/{UNKNOWN}/rerun/", {}, 404, "not_found", 0),
    ("GET", f"jobs/{RUN}/rerun/", {}, 405, "method_not_allowed", 0),
    ("POST", f"jobs/{RUN}/rerun/", {"data": '{"partner": 8}'}, 422, "invalid_options", 0),
    ("POST", f"jobs/{RUN}/rerun/", {"data": "{}"}, 202, None, 1),
    ("POST", f"jobs/{RUN}/rerun/", {"data": "x"}, 400, "invalid_json", 0),
    ("POST", f"jobs/{RUN}/rerun/", {"data": '{"failed_only": false}'}, 202, None, 1),
    ("POST", f"jobs/{RUN}/rerun/", {"data": '{"failed_only": 1}'}, 422, "invalid_options", 0),
    ("POST", f"jobs/{RUN}/rerun/", {"data": '{"failed_only": true}'}, 409, "rerun_refused", 0),
    ("POST", f"jobs/{RUN}/rerun/", {"headers": {"idempotency-key": "a"}}, 400, "invalid_request", 0),
    ("POST", f"jobs/{RUN}/cancel/", {}, 409, "ended", 0),
    ("POST", f"jobs/{RUN}/cancel/", {"data": '{"now": 1}'}, 422, "invalid_options", 0),
    ("POST", f"jobs/{RUN}/cancel/", {"token": "reader"}, 403, "forbidden", 0),
    ("POST", f"jobs/{RUN}/cancel/?now=1", {}, 400, "invalid_query", 0),
]


def replaced(declared: dict[str, Any], value: str) -> Any:
    """Return the declaration with this value."""
    return json.loads(json.dumps(declared).replace("VALUE", value))


@pytest.fixture
def run() -> JobRun:
    """A run that has succeeded."""
    run: JobRun = JobRun.objects.create(
        pk=RUN,
        command="echo",
        argv=["echo", "--partner=7"],
        environment="test",
        trigger="delay",
        status="succeeded",
        execution="echo-test-abcde",
        result={"refreshed": 3},
        traceback="Traceback: a secret",
    )
    return run


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize(("method", "path", "options", "status", "code", "rows"), REQUESTS)
def test_request(
    call: Callable[..., Any], method: str, path: str, options: Any, status: int, code: str | None, rows: int
) -> None:
    """The status, the body in its one shape, and the number of new rows."""
    before = JobRun.objects.count()

    response = call(method, path, **options)

    body = response.json()
    assert (response.status_code, body.get("error", {}).get("code")) == (status, code), body
    assert set(body.get("error", {})) <= {"code", "message", "hint", "fields"}
    assert JobRun.objects.count() - before == rows
    assert response["Cache-Control"] == "no-store"
    assert "secret" not in response.text


def test_all_invalid_parameters_are_named(call: Callable[..., Any]) -> None:
    """An invalid cursor does not hide the others."""
    error = call("GET", "jobs/?cursor=AAAA&status=queued&x=1").json()["error"]

    assert set(error["fields"]) == {"cursor", "status", "x"}


def test_everything_is_missing_without_a_credential(call: Callable[..., Any], settings: Any) -> None:
    """Until a credential is configured, no URL exists."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test"}

    for method, path in (("GET", "jobs/"), ("POST", "jobs/echo/"), ("DELETE", "jobs/"), ("GET", "elsewhere/")):
        assert call(method, path).status_code == 404
    assert not JobRun.objects.exists()


def test_started_run_is_recorded(call: Callable[..., Any]) -> None:
    """The answer names the run; its record has the options, the trigger and the requester."""
    response = call("POST", "jobs/echo/", data='{"partner": 7, "note": "東京"}')

    run = JobRun.objects.get()
    assert response.json() == {"job_id": str(run.pk), "status": "queued", "url": f"/cloudrun_jobs/jobs/{run.pk}/"}
    assert response["Location"] == f"/cloudrun_jobs/jobs/{run.pk}/"
    assert (run.trigger, run.requested_by) == ("http", "token all")
    assert run.result == {"words": [], "partner": 7, "note": "東京"}
    shown = call("GET", f"jobs/{run.pk}/").json()
    assert (shown["id"], shown["status"], shown["result"]) == (str(run.pk), "succeeded", run.result)
    assert "traceback" not in shown


def test_failure_of_an_inline_job_is_in_its_record(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request was accepted; in the environment "test" the job has already failed by then."""
    monkeypatch.setattr(echo.Command, "run", lambda self, **options: 1 / 0)

    response = call("POST", "jobs/echo/")

    assert response.status_code == 202
    shown = call("GET", f"jobs/{response.json()['job_id']}/").json()
    assert (shown["status"], shown["error_class"]) == ("failed", "ZeroDivisionError")


def test_failed_tasks_are_repeated(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The new run repeats the failed tasks of the first run; GET returns the failures of a run."""
    with monkeypatch.context() as broken:
        broken.setattr(echo.Command, "run", lambda self, **options: 1 / 0)
        failed = call("POST", "jobs/echo/", data='{"partner": 7}').json()["job_id"]
    shown = call("GET", f"jobs/{failed}/").json()
    error = {"error_class": "ZeroDivisionError", "error_message": "division by zero"}
    assert shown["failed_tasks"]["first"] == [{"index": 0, "status": "failed", "reason": "error", **error}]
    assert shown["failed_items"] == {"count": 0, "first": []}

    response = call("POST", f"jobs/{failed}/rerun/", data='{"failed_only": true}')
    again = JobRun.objects.get(pk=response.json()["job_id"])
    assert (str(again.rerun_of_id), again.result["partner"]) == (failed, 7)
    assert call("GET", f"jobs/{again.pk}/").json()["failed_tasks"]["count"] == 0


@pytest.mark.django_db(transaction=True)
def test_request_that_cloud_run_refuses(
    call: Callable[..., Any], settings: Any, cloudrun_emulator: Emulator
) -> None:
    """The response says what to do, without the names of resources; the record has the reason."""
    cloud = {"PROJECT": "acme", "REGION": "asia-northeast1", "OPTIONS": {"endpoint": cloudrun_emulator.grpc}}
    settings.CLOUDRUN_JOBS = {**configured(), **cloud, "ENVIRONMENT": "production"}

    response = call("POST", "jobs/echo/")

    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (502, "service_error")
    assert "sync_cloudrun_jobs" in error["hint"]
    assert "acme" not in response.content.decode()
    assert JobRun.objects.get().reason == "not_sent"


@pytest.mark.django_db(transaction=True)
def test_local_run_is_cancelled_without_a_call(
    call: Callable[..., Any],
    settings: Any,
    cloudrun_emulator: Emulator,
    run: JobRun,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The process of `run --local` reads the request from the record."""
    cloud = {"PROJECT": "acme", "REGION": "asia-northeast1", "OPTIONS": {"endpoint": cloudrun_emulator.grpc}}
    settings.CLOUDRUN_JOBS = {**configured(), **cloud, "ENVIRONMENT": "production"}
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    local_output.Recorder("echo-production-abcdef").close()
    run.update_if(Q(), status=Status.RUNNING, execution="echo-production-abcdef")
    cloudrun_emulator.calls.clear()

    assert call("POST", f"jobs/{run.pk}/cancel/").status_code == 202
    run.refresh_from_db()
    assert (run.cancel_requested_at is not None, cloudrun_emulator.calls) == (True, {})


@pytest.mark.parametrize("path", ["jobs/echo/", f"jobs/{RUN}/rerun/"])
def test_invalid_job_is_named(
    call: Callable[..., Any], run: JobRun, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(echo.Command, "timeout", 0, raising=False)

    response = call("POST", path)

    assert (response.status_code, response.json()["error"]["code"]) == (500, "invalid_job")


def test_missing_slash_is_named(call: Callable[..., Any]) -> None:
    """Django does not redirect to a URL that has a view."""
    assert call("GET", "jobs").json()["error"]["hint"] == "The URLs of this API end with a slash."


def test_invalid_settings_are_an_error_in_the_usual_format(call: Callable[..., Any], settings: Any) -> None:
    """A web server does not run the checks, and a page of Django's would show the settings in DEBUG."""
    settings.CLOUDRUN_JOBS = {"HTPP": {}}

    response = call("GET", "jobs/")

    assert (response.status_code, response.json()["error"]["code"]) == (500, "invalid_settings")
    assert "HTPP" not in response.content.decode()


def test_repeated_request_is_logged_once(call: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    """The second one starts nothing."""
    caplog.set_level("INFO", logger="cloudrun_jobs")
    for _ in range(2):
        call("POST", "jobs/echo/", headers={"idempotency-key": "a"})

    assert [getattr(each, "action", "") for each in caplog.records].count("run_action") == 1


@pytest.mark.parametrize("error", [JobInterrupted("interrupted"), LeaseLost("lost")], ids=["interrupt", "lease"])
def test_interrupted_inline_run_is_queued(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Neither is an `Exception`; the record has the outcome."""

    def run(self: Any, *args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(echo.Command, "run", run)

    assert call("POST", "jobs/echo/").status_code == 202
    assert JobRun.objects.get().status == "failed"


def test_idempotency_key_returns_the_same_run(call: Callable[..., Any]) -> None:
    """A repeated request gets the same run; one with another body is refused; a key is its caller's own."""
    key = {"idempotency-key": "2026-01-02"}

    first = call("POST", "jobs/echo/", data='{"partner": 7}', headers=key)
    again = call("POST", "jobs/echo/", data='{"partner":7}', headers=key)
    other = call("POST", "jobs/echo/", data='{"partner": 8}', headers=key)
    other_caller = call("POST", "jobs/echo/", data='{"partner": 8}', headers=key, token="echo only")

    assert first.json() == again.json()
    message = "The Idempotency-Key was used with another body."
    assert (other.status_code, other.json()["error"]["message"]) == (422, message)
    assert other_caller.status_code == 202
    assert JobRun.objects.count() == 2


@pytest.mark.parametrize(
    "callers",
    [[("b", "k token a"), ("a token b", "k")], [("n" * 250 + "1", "k"), ("n" * 250 + "2", "k")]],
    ids=["alike", "long"],
)
def test_idempotency_keys_belong_to_one_caller(
    http: Client, settings: Any, callers: list[tuple[str, str]]
) -> None:
    """Neither a name that resembles a key, nor a long one, gives a caller the run of another one."""
    runs = []
    for name, key in callers:
        token = {"name": name, "header": "x-token", "sha256": sha256(b"t").hexdigest(), "scopes": ["run"]}
        settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test", "HTTP": {"TOKENS": [token]}}
        headers = {"x-token": "t", "idempotency-key": key}
        runs.append(
            http.post("/cloudrun_jobs/jobs/echo/", content_type="application/json", headers=headers).json()
        )

    assert runs[0]["job_id"] != runs[1]["job_id"]


def test_all_refused_options_are_named(call: Callable[..., Any]) -> None:
    """One answer names every option that the caller may not set."""
    response = call("POST", "jobs/echo/", data=json.dumps({"words": [], "partner": 1, "verbosity": 1}))

    assert set(response.json()["error"]["fields"]) == {"verbosity", "words"}


@pytest.mark.parametrize("value", ["hunter2", "secret:partner-token:3"])
def test_secret_option_of_a_body_is_refused(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """Callers cannot set a secret option: they could name any secret that the job's account may read."""
    monkeypatch.setattr(echo.Command, "secret_options", ("note",), raising=False)
    monkeypatch.setattr(echo.Command, "http_options", ("partner",))
    response = call("POST", "jobs/echo/", data=json.dumps({"note": value}))

    assert response.status_code == 422
    assert response.json()["error"]["fields"].keys() == {"note"}
    assert value not in response.text
    assert not JobRun.objects.exists()


@pytest.mark.parametrize("argv", [None, 5, {"a": 1}, [[]]])
def test_rerun_without_arguments_is_refused(call: Callable[..., Any], argv: Any) -> None:
    """What was recorded as arguments may be no command line."""
    run = JobRun.objects.create(command="echo", argv=argv, environment="test", trigger="manual", status="failed")

    assert call("POST", f"jobs/{run.pk}/rerun/").status_code == 422


@pytest.mark.parametrize("action", ["cancel", "rerun"])
def test_actions_do_not_read_the_result(call: Callable[..., Any], action: str) -> None:
    """A run whose result cannot be decoded can be cancelled and repeated."""
    run = JobRun.objects.create(command="echo", argv=["echo"], environment="test", trigger="manual")
    JobRun.objects.update(result=Cast(Value("9" * 5000), JSONField()))

    assert call("POST", f"jobs/{run.pk}/{action}/").status_code == 202


def test_rerun_of_a_plain_value_is_refused(call: Callable[..., Any]) -> None:
    """A plain value is not recorded, so its run cannot be rerun."""
    run = JobRun.objects.create(
        command="echo", argv=["echo", "--note=[secret]"], environment="test", trigger="manual", status="failed"
    )
    response = call("POST", f"jobs/{run.pk}/rerun/")

    assert (response.status_code, response.json()["error"]["code"]) == (409, "rerun_refused")
