"""A project's own URLs over the API's views, without the API's own URLs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import path

from cloudrun_jobs.http.views import endpoint, list_runs, show_newest_run, show_run, show_stats, start_run
from cloudrun_jobs.models import JobRun, Trigger
from tests.jobs.management.commands import echo

urlpatterns = [
    path("cloudrun_jobs/start", endpoint(POST=start_run("echo"))),
    path("cloudrun_jobs/runs", endpoint(GET=list_runs("echo"))),
    path("cloudrun_jobs/stats", endpoint(GET=show_stats("echo"))),
    path("cloudrun_jobs/runs/<str:id>", endpoint(GET=show_run("echo"))),
    path("cloudrun_jobs/partners/<int:partner>", endpoint(POST=start_run("echo"), GET=show_newest_run("echo"))),
    path("cloudrun_jobs/notes/<str:note>", endpoint(POST=start_run("echo"), GET=show_newest_run("echo"))),
    path("cloudrun_jobs/<str:unknown>/unknown", endpoint(POST=start_run("echo"), GET=show_newest_run("echo"))),
    path("cloudrun_jobs/gone", endpoint(POST=start_run("gone"), GET=show_newest_run("gone"))),
]

WALK = "2b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed"
REQUESTS: list[tuple[str, str, dict[str, Any], int, str | None, int]] = [
    ("POST", "start", {"data": '{"partner": 7}'}, 202, None, 1),
    ("POST", "start", {"token": ""}, 401, "unauthenticated", 0),
    ("POST", "start", {"token": "reader"}, 403, "forbidden", 0),
    ("POST", "start", {"token": "walk only"}, 403, "forbidden", 0),
    ("POST", "start", {"data": '{"words": []}'}, 422, "invalid_options", 0),
    ("GET", "start", {}, 405, "method_not_allowed", 0),
    ("GET", "runs", {}, 200, None, 0),
    ("GET", "runs", {"token": "walk only"}, 403, "forbidden", 0),
    ("GET", "runs?status=failed", {}, 200, None, 0),
    ("GET", "runs?command=walk", {}, 400, "invalid_query", 0),
    ("GET", "stats", {}, 200, None, 0),
    ("GET", "stats", {"token": "walk only"}, 403, "forbidden", 0),
    ("GET", "stats?a=b", {}, 400, "invalid_query", 0),
    ("GET", f"runs/{WALK}", {}, 404, "not_found", 0),
    ("GET", "runs/unknown", {}, 404, "not_found", 0),
    ("POST", "partners/7", {}, 202, None, 1),
    ("POST", "partners/7", {"data": '{"note": "a"}'}, 202, None, 1),
    ("POST", "partners/7", {"data": '{"partner": 8}'}, 422, "invalid_options", 0),
    ("GET", "partners/7", {}, 404, "not_found", 0),
    ("GET", "partners/7", {"token": "walk only"}, 403, "forbidden", 0),
    ("GET", "partners/7?wait=1", {}, 400, "invalid_query", 0),
    ("POST", "notes/--settings=x", {}, 202, None, 1),
    ("POST", "notes/%00", {}, 422, "invalid_options", 0),
    ("GET", "notes/%00", {}, 404, "not_found", 0),
    ("POST", "x/unknown", {}, 422, "invalid_options", 0),
    ("GET", "x/unknown", {}, 404, "not_found", 0),
    ("POST", "gone", {}, 404, "not_found", 0),
    ("GET", "gone", {}, 404, "not_found", 0),
]


@pytest.fixture(autouse=True)
def _own_urls(http: Client, settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.http_api.test_views"


@pytest.mark.parametrize(("method", "path", "options", "status", "code", "rows"), REQUESTS)
def test_request(
    call: Callable[..., Any],
    method: str,
    path: str,
    options: dict[str, Any],
    status: int,
    code: str | None,
    rows: int,
) -> None:
    """Credentials, commands and options are checked as at the API's own URLs."""
    JobRun.objects.create(pk=WALK, command="walk", argv=["walk"], environment="test", trigger=Trigger.DELAY)
    response = call(method, path, **options)

    assert (response.status_code, response.json().get("error", {}).get("code")) == (status, code)
    assert JobRun.objects.count() == 1 + rows


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("value", ["hunter2", "secret:token"])
def test_secret_option_of_a_url_is_refused(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, method: str, value: str
) -> None:
    """Callers cannot set a secret option: they could name any secret that the job's account may read."""
    monkeypatch.setattr(echo.Command, "secret_options", ("note",), raising=False)
    monkeypatch.setattr(echo.Command, "http_options", ("partner",))

    response = call(method, f"notes/{value}")

    assert (response.status_code, response.json()["error"]["code"]) == (422, "invalid_options")
    assert "secret option" in response.json()["error"]["message"]
    assert value not in response.text
    assert call("GET", "partners/7").status_code == 404


def test_run_is_started_and_shown(call: Callable[..., Any]) -> None:
    """The URL's argument becomes an option, and finds the newest run that had it."""
    answers = [call("POST", "partners/7", data=data).json() for data in ("", '{"note": "한국 \\"7\\""}')]
    call("POST", "partners/77")
    shown = call("GET", "partners/7").json()

    assert [sorted(answer) for answer in answers] == [["job_id", "status"]] * 2
    assert shown["id"] == answers[1]["job_id"]
    assert shown["argv"] == ["echo", "--partner=7", '--note=한국 "7"']
    assert shown == call("GET", f"runs/{shown['id']}").json()
    assert len(call("GET", "runs").json()["runs"]) == 3
    assert call("GET", "stats").json()["counts"] == {"succeeded": 3}
