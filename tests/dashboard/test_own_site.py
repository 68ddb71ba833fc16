"""Who may open the dashboard, and what everyone else sees."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from unittest import mock
from uuid import UUID

import pytest
from django.contrib.auth.models import Permission, User
from django.core.cache import cache
from django.db import InternalError, OperationalError, connection
from django.http import HttpResponseRedirect
from django.test import Client
from django.urls import include, path
from django.urls.converters import get_converters

from cloudrun_jobs.dashboard.own_site.notices import MAX_CHARACTERS, MAX_NOTICES
from cloudrun_jobs.dashboard.site import Level, Page
from cloudrun_jobs.dashboard.view import View
from cloudrun_jobs.dashboard.views import VIEWS
from cloudrun_jobs.exceptions import RecordUnavailable
from cloudrun_jobs.models import JobRun

HERE = "tests.dashboard.test_own_site"
BASE = "/cloudrun_jobs/dashboard/"
JOBS = f"{BASE}jobs/"
RUN = f"{BASE}runs/{UUID(int=7)}/"
OPEN = {"ENVIRONMENT": "test", "HTTP": {"SESSION": True}}
TOKEN = {"name": "n8n", "sha256": "a" * 64, "scopes": ["read"]}
CLOSED = '{"error": {"code": "not_found", "message": "There is nothing at this URL."}}'

#: A project with nothing else.
urlpatterns = [path("cloudrun_jobs/", include("cloudrun_jobs.urls"))]


@pytest.fixture(autouse=True)
def _open(settings: Any) -> None:
    settings.CLOUDRUN_JOBS = OPEN
    cache.clear()


@pytest.fixture
def staff(client: Client) -> User:
    """A member of staff who is signed in and may see everything."""
    return sign_in(client, "view_jobrun", "run_job", "cancel_job")


def sign_in(client: Client, *permissions: str, **values: Any) -> User:
    user = User.objects.create_user("mina", **{"is_staff": True, **values})
    user.user_permissions.add(*Permission.objects.filter(codename__in=permissions))
    client.force_login(user)
    return user


@pytest.fixture
def handle(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a handler in the place of that of the page of the jobs."""

    def handle(handler: Callable[..., Any], methods: tuple[str, ...] = ("GET", "POST")) -> None:
        monkeypatch.setitem(VIEWS, "jobs", View(handler, "read", methods))  # type: ignore[attr-defined]

    return handle


def fail(error: Exception) -> Callable[..., Any]:
    def handler(*args: Any, **parameters: Any) -> Any:
        raise error

    return handler


def text(response: Any) -> str:
    return " ".join(response.content.decode().split())


@pytest.mark.parametrize("http", [{}, {"TOKENS": [TOKEN]}, {"SESSION": False}, {"HEALTH": "public"}])
@pytest.mark.parametrize("url", [BASE, JOBS, RUN, f"{BASE}other/", BASE.rstrip("/")])
def test_dashboard_is_closed_without_sessions(
    client: Client, staff: User, settings: Any, http: dict[str, Any], url: str
) -> None:
    """Unless sessions are accepted, each URL answers like the closed API."""
    settings.CLOUDRUN_JOBS = {**OPEN, "HTTP": http}
    response = client.get(url)

    assert (response.status_code, response.content.decode()) == (404, CLOSED)


@pytest.mark.parametrize(
    ("urlconf", "login_url", "expected"),
    [
        ("example.urls", "login", "/login/?next=/cloudrun_jobs/dashboard/jobs/%3Fcloud%3D1"),
        ("example.urls", "/sso/start?a=1", "/sso/start?a=1&next=/cloudrun_jobs/dashboard/jobs/%3Fcloud%3D1"),
        (
            "example.urls",
            "https://sso.example/",
            "https://sso.example/?next=http%3A//testserver/cloudrun_jobs/dashboard/jobs/%3Fcloud%3D1",
        ),
        ("example.urls", "/accounts/login/", "/admin/login/?next=/cloudrun_jobs/dashboard/jobs/%3Fcloud%3D1"),
        ("example.urls", "no_such_name", "/admin/login/?next=/cloudrun_jobs/dashboard/jobs/%3Fcloud%3D1"),
        (HERE, "/accounts/login/", None),
        (HERE, "no_such_name", None),
    ],
)
def test_anonymous_visitor_is_sent_to_sign_in(
    client: Client, settings: Any, urlconf: str, login_url: str, expected: str | None
) -> None:
    """The redirect goes to LOGIN_URL, else to the admin's page; without both, the page says what to configure."""
    settings.ROOT_URLCONF, settings.LOGIN_URL = urlconf, login_url
    response = client.get(f"{JOBS}?cloud=1")

    assert response.get("Location") == expected
    assert response.status_code == (302 if expected else 403)
    assert ("LOGIN_URL" in text(response)) is not bool(expected)


def test_action_of_anonymous_visitor_returns_to_a_page(client: Client) -> None:
    """A sign-in does not lead to a URL that only takes a POST."""
    assert client.post(f"{RUN}cancel/")["Location"] == f"/admin/login/?next={JOBS}"
    assert client.post(f"{JOBS}echo/start/")["Location"] == f"/admin/login/?next={JOBS}echo/start/"


@pytest.mark.parametrize(
    ("values", "permissions", "url", "needed"),
    [
        ({"is_staff": False}, ("view_jobrun",), JOBS, "view_jobrun"),
        ({}, (), JOBS, "view_jobrun"),
        ({}, ("run_job",), f"{JOBS}echo/start/", "view_jobrun"),
        ({}, ("view_jobrun",), f"{JOBS}echo/start/", "run_job"),
        ({}, ("view_jobrun", "run_job"), f"{RUN}cancel/", "cancel_job"),
    ],
)
def test_user_without_permission_is_refused(
    client: Client, values: dict[str, Any], permissions: tuple[str, ...], url: str, needed: str
) -> None:
    """The page names the user and the permission, and has a way to sign out."""
    sign_in(client, *permissions, **values)
    response = client.post(url)

    assert response.status_code == 403
    assert f"the permission “cloudrun_jobs.{needed}”" in text(response)
    assert "Signed in as <bdi>mina</bdi>" in text(response)
    assert 'action="/logout/"' in text(response)
    assert (f'href="{JOBS}"' in text(response)) is (needed != "view_jobrun")


@pytest.mark.parametrize(
    ("url", "expected"),
    [(BASE, JOBS), (BASE.rstrip("/"), JOBS), (f"{BASE}runs", f"{BASE}runs/"), (f"{JOBS}a?b=c", f"{JOBS}a/?b=c")],
)
def test_short_urls_are_redirected(client: Client, staff: User, url: str, expected: str) -> None:
    """The dashboard opens with the jobs, and a missing slash is added."""
    assert client.get(url)["Location"] == expected


@pytest.mark.parametrize("url", [f"{BASE}other/", f"{BASE}runs/not-an-id/", f"{JOBS}a/b/c/"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_missing_page_is_a_page(client: Client, staff: User, url: str, method: str) -> None:
    """A URL that does not exist is answered in the frame of the dashboard."""
    response = getattr(client, method)(url)

    assert response.status_code == 404
    assert "<h1><bdi>Not found</bdi></h1>" in text(response)
    assert f'href="{JOBS}"' in text(response)


@pytest.mark.parametrize("method", ["get", "put", "delete", "options"])
def test_method_not_allowed_is_a_page(client: Client, staff: User, method: str) -> None:
    """A method that a URL does not take is answered in the frame, with the methods that it takes."""
    response = getattr(client, method)(f"{RUN}cancel/")

    assert (response.status_code, response["Allow"]) == (405, "POST")
    assert "<h1><bdi>Method not allowed</bdi></h1>" in text(response)


@pytest.mark.parametrize("middleware", ["with", "without"])
def test_forged_request_is_refused(staff: User, settings: Any, handle: Any, middleware: str) -> None:
    """A POST without a token does nothing, even if the project has no CSRF middleware."""
    removed = "django.middleware.csrf.CsrfViewMiddleware" if middleware == "without" else ""
    settings.MIDDLEWARE = [each for each in settings.MIDDLEWARE if each != removed]
    done = []
    handle(lambda site, request, caller: done.append(caller.name) or HttpResponseRedirect(JOBS))
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(staff)
    forged = browser.post(JOBS, headers={"origin": "https://evil.example"})
    browser.cookies["csrftoken"] = "a" * 32
    accepted = browser.post(JOBS, {"csrfmiddlewaretoken": "a" * 32})

    assert (forged.status_code, accepted.status_code, done) == (403, 302, ["mina"])
    assert "Nothing was changed" in text(forged)


@pytest.mark.parametrize(
    "middleware",
    ["django.contrib.auth.middleware.AuthenticationMiddleware", "django.contrib.sessions.middleware.S"],
)
def test_missing_middleware_is_named(client: Client, settings: Any, middleware: str) -> None:
    """The page of a project without signed-in users names what it lacks."""
    prefixes = ("django.contrib.auth", "django.contrib.messages", middleware)
    settings.MIDDLEWARE = [each for each in settings.MIDDLEWARE if not each.startswith(prefixes)]
    response = client.get(JOBS)

    assert response.status_code == 403
    assert "AuthenticationMiddleware" in text(response)


def test_rate_is_limited(client: Client, staff: User, settings: Any, handle: Any) -> None:
    """Requests beyond the rate of the HTTP API are refused with a page."""
    settings.CLOUDRUN_JOBS = {**OPEN, "HTTP": {"SESSION": True, "RATE": "1/h"}}
    handle(lambda site, request, caller: site.render(request, Page(template="problem.html", title="Fine")))
    statuses = [client.get(JOBS).status_code for _ in range(2)]
    response = client.get(JOBS)

    assert statuses == [200, 429]
    assert 0 < int(response["Retry-After"]) <= 3600
    assert "Too many requests" in text(response)


@pytest.mark.parametrize(("path", "headers"), [(JOBS, {"x-cloudrun-jobs-live": "1"}), (f"{RUN}events/", {})])
def test_open_page_does_not_use_up_the_rate(
    client: Client, staff: User, settings: Any, path: str, headers: dict[str, str]
) -> None:
    """The requests of a page that is open have a limit of their own, so that the user's click is accepted."""
    settings.CLOUDRUN_JOBS = {**OPEN, "HTTP": {"SESSION": True, "RATE": "1/h"}}
    live = [client.get(path, headers=headers).status_code for _ in range(2)]
    clicks = [client.post(f"{RUN}cancel/", headers=headers).status_code for _ in range(2)]

    assert live[1] == 429
    assert clicks == [302, 429]


@pytest.mark.parametrize(
    ("http", "status"), [({"SESSION": True, "TOKNES": []}, 500), ({"SESSION": "yes"}, 500), ("open", 500)]
)
def test_invalid_settings_are_a_page(client: Client, settings: Any, http: Any, status: int) -> None:
    """The page does not repeat what is invalid, and the log does."""
    settings.CLOUDRUN_JOBS = {**OPEN, "HTTP": http}
    response = client.get(JOBS)

    assert response.status_code == status
    assert "The settings of cloudrun_jobs are invalid" in text(response)
    assert "TOKNES" not in text(response)


def test_database_that_is_down_is_a_page(client: Client, staff: User, handle: Any, caplog: Any) -> None:
    """The page needs no database; the error is logged."""
    handle(fail(OperationalError("the password is 1234")))
    with caplog.at_level(logging.ERROR):
        response = client.get(JOBS)

    assert (response.status_code, response["Retry-After"]) == (503, "30")
    assert "The database does not answer" in text(response)
    assert "1234" not in text(response)
    assert "1234" in caplog.text


ADMIN = "/admin/cloudrun_jobs/"
PATHS = (
    *(JOBS, f"{BASE}jobs/echo/", f"{BASE}runs/", RUN, f"{RUN}events/", f"{RUN}text/error/"),
    *(f"{ADMIN}job/", f"{ADMIN}job/echo/change/", f"{ADMIN}job/gone/history/"),
    *(f"{ADMIN}jobrun/", f"{ADMIN}jobrun/?status=failed", f"{ADMIN}jobrun/{UUID(int=7)}/change/"),
    *(f"{ADMIN}jobrun/{UUID(int=7)}/{name}/" for name in ("events", "history", "text/error")),
)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("error", [OperationalError, InternalError, RecordUnavailable])
def test_outage_is_a_page(
    client: Client, staff: User, path: str, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    """While the records cannot be read, each page says so, and the text of the driver is in the log alone."""
    with connection.execute_wrapper(without_records(error("10.0.0.3 closed the connection"))):
        response = client.get(path)

    assert response.status_code == 503
    assert "The database does not answer" in text(response)
    assert "10.0.0.3" not in text(response)
    assert "migrate" not in text(response)
    assert "no-store" in response["Cache-Control"]
    assert [str(each.exc_info[1]) for each in caplog.records if each.exc_info] == [
        "10.0.0.3 closed the connection"
    ]


@pytest.mark.parametrize("path", ["job/nothing/pause/", f"jobrun/{UUID(int=7)}/cancel/", "jobrun/rerun-selected/"])
def test_outage_during_an_action_is_a_page(client: Client, staff: User, path: str, settings: Any) -> None:
    """An action of the admin during an outage shows the same page."""
    fields = {"key": UUID(int=1), "run": UUID(int=7)}
    with (
        mock.patch("cloudrun_jobs.dashboard.jobs.actions.find_specs", side_effect=OperationalError("down")),
        connection.execute_wrapper(without_records(OperationalError("down"))),
    ):
        response = client.post(f"{ADMIN}{path}", fields)

    assert response.status_code == 503
    assert "The database does not answer" in text(response)


def without_records(error: Exception) -> Callable[..., Any]:
    """Return a wrapper that lets each query of this package's tables fail."""

    def execute(run: Any, sql: str, parameters: Any, many: bool, context: Any) -> Any:
        if "cloudrun_jobs_" in sql:
            raise error
        return run(sql, parameters, many, context)

    return execute


def test_database_without_the_users_is_a_page(
    client: Client, staff: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that fails while the user is read is reported in the same way."""
    monkeypatch.setattr("django.contrib.auth.backends.ModelBackend.get_user", fail(OperationalError("down")))

    assert client.get(JOBS).status_code == 503


@pytest.mark.parametrize("engine", ["none", "other", "without apps"])
def test_project_without_our_templates(client: Client, staff: User, settings: Any, engine: str) -> None:
    """The dashboard needs no template engine of the project, and none of its context processors."""
    django = {"BACKEND": "django.template.backends.django.DjangoTemplates"}
    other = {"BACKEND": "django.template.backends.dummy.TemplateStrings", "APP_DIRS": False}
    settings.TEMPLATES = {"none": [], "other": [other], "without apps": [django]}[engine]
    run = JobRun.objects.create(command="everything", environment="test", trigger="delay")
    paths = ("jobs/", "jobs/everything/", "jobs/everything/start/", "runs/", f"runs/{run.pk}/")

    assert {client.get(f"{BASE}{path}").status_code for path in paths} == {200}
    assert "<h1><bdi>Not found</bdi></h1>" in text(client.get(f"{BASE}nothing/"))


@pytest.mark.parametrize("query", ["", "?x=1"])
@pytest.mark.parametrize("base", [f"{BASE}runs/", "/admin/cloudrun_jobs/jobrun/"])
def test_invalid_stream_is_refused(client: Client, staff: User, base: str, query: str) -> None:
    """A stream with parameters, or of a run that does not exist, is refused without an error of the server."""
    run = JobRun.objects.create(command="echo", environment="test", trigger="delay")
    found, missing = (
        client.get(f"{base}{run.pk}/events/{query}"),
        client.get(f"{base}{UUID(int=9)}/events/{query}"),
    )

    assert found.status_code == (400 if query else 200)
    assert missing.status_code in {302, 400, 404}


def test_page_cannot_be_framed_or_kept(client: Client, staff: User, settings: Any, handle: Any) -> None:
    """No other site can lay its page over the buttons, and no cache keeps a page, whatever the middleware."""
    settings.MIDDLEWARE = [each for each in settings.MIDDLEWARE if "XFrame" not in each]
    handle(lambda site, request, caller: site.render(request, Page(template="problem.html", title="Fine")))
    response = client.get(JOBS)

    assert response["X-Frame-Options"] == "DENY"
    assert "no-store" in response["Cache-Control"]


def notify(client: Client, handle: Any, *messages: str, level: Level = Level.SUCCESS) -> None:
    """Post to a page that keeps these messages for the next one."""

    def handler(site: Any, request: Any, caller: Any) -> Any:
        if request.method == "GET":
            return site.render(request, Page(template="problem.html", title="Fine"))
        for message in messages:
            site.notify(request, level, message)
        return HttpResponseRedirect(JOBS)

    handle(handler)
    client.post(JOBS)


@pytest.fixture(params=["db", "signed_cookies", "cache"])
def _sessions(request: pytest.FixtureRequest, settings: Any) -> None:
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{request.param}"


@pytest.mark.usefixtures("_sessions")
def test_notice_is_shown_once(client: Client, handle: Any, settings: Any) -> None:
    """The next page shows the notice, in any kind of session, without `django.contrib.messages`."""
    settings.MIDDLEWARE = [each for each in settings.MIDDLEWARE if "messages" not in each]
    sign_in(client, "view_jobrun")
    notify(client, handle, "The run of <b>walk</b> was cancelled.", level=Level.ERROR)
    probe = client.get(JOBS, headers={"x-cloudrun-jobs-live": "1"})
    first, second = client.get(JOBS), client.get(JOBS)

    assert "was cancelled" not in text(probe) + text(second)
    assert 'class="notice notice-error" role="alert"' in text(first)
    assert "The run of &lt;b&gt;walk&lt;/b&gt; was cancelled." in text(first)


def test_notices_fit_into_a_cookie(client: Client, handle: Any, settings: Any) -> None:
    """Long and many notices leave room for the session."""
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    sign_in(client, "view_jobrun")
    notify(client, handle, *(chr(0x1F600 + number) * 5000 for number in range(9)))
    response = client.get(JOBS)

    assert len(client.cookies["sessionid"].value) < 3000
    assert text(response).count('class="notice') == MAX_NOTICES
    assert chr(0x1F600 + 8) * (MAX_CHARACTERS - 1) + "…" in text(response)


STARTED = """
import sys, django
django.setup()
import cloudrun_jobs.urls
print(*sys.modules)
"""


def test_urls_import_no_pages() -> None:
    """The start of a job, which imports the URLs, imports neither the pages nor what they need."""
    command = [sys.executable, "-c", STARTED]
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    loaded = set(subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout.split())

    assert "cloudrun_jobs.urls" in loaded
    pages = {f"cloudrun_jobs.dashboard.{name}" for name in ("views", "own_site.access", "start.pages")}
    assert not {*pages, "cloudrun_jobs.http.endpoint"} & loaded


def test_names_of_converters_are_left_to_the_project() -> None:
    """Django has one registry of them, and rejects a second "job"."""
    assert "job" not in get_converters()
