"""Members of staff who are signed in."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.backends.db import SessionStore
from django.db import OperationalError
from django.test import Client

from cloudrun_jobs.models import JobRun
from tests.http_api.conftest import configured, secret


@pytest.fixture
def staff(http: Client, settings: Any) -> User:
    """A member of staff, signed in, without permissions."""
    settings.CLOUDRUN_JOBS = configured(SESSION=True)
    user = User.objects.create_user("mina", is_staff=True)
    http.force_login(user)
    return user


def grant(user: User, *names: str) -> None:
    user.user_permissions.add(*Permission.objects.filter(codename__in=names))


def post(http: Client, path: str = "jobs/echo/", **headers: str) -> Any:
    return http.post(f"/cloudrun_jobs/{path}", content_type="application/json", headers=headers)


def csrf(http: Client) -> dict[str, str]:
    """Return the header of a page's script, and set its cookie."""
    http.cookies["csrftoken"] = "a" * 32
    return {"x-csrftoken": "a" * 32}


@pytest.mark.parametrize(
    ("permissions", "read", "run"),
    [((), 403, 403), (("view_jobrun",), 200, 403), (("run_job",), 403, 202), (("cancel_job",), 403, 403)],
)
def test_permissions_decide(http: Client, staff: User, permissions: tuple[str, ...], read: int, run: int) -> None:
    """Each permission opens what its name says."""
    grant(staff, *permissions)

    assert http.get("/cloudrun_jobs/jobs/").status_code == read
    assert post(http, **csrf(http)).status_code == run


def test_run_is_requested_by_the_user(http: Client, staff: User) -> None:
    """The record names the user."""
    grant(staff, "run_job")
    post(http, **csrf(http))

    assert JobRun.objects.get().requested_by == "mina"


def test_request_of_another_site_is_rejected(http: Client, staff: User) -> None:
    """A session needs a CSRF token for whatever changes something."""
    grant(staff, "run_job", "view_jobrun")

    response = post(http)

    assert (response.status_code, response.json()["error"]["code"]) == (403, "csrf_failed")
    assert http.get("/cloudrun_jobs/jobs/").status_code == 200
    assert not JobRun.objects.exists()


MULTIPART = 'multipart/form-data; boundary="b"'
FORM = "application/x-www-form-urlencoded"
FIELD = b'--b\r\nContent-Disposition: form-data; name="csrfmiddlewaretoken"\r\n\r\n' + b"a" * 32 + b"\r\n--b--\r\n"


@pytest.mark.parametrize(
    ("path", "content_type", "data", "status", "code"),
    [
        ("jobs/echo/", MULTIPART, FIELD, 415, "unsupported_media_type"),
        ("run/in_request/", MULTIPART, FIELD, 400, "invalid_json"),
        ("jobs/echo/", "multipart/form-data", b"xx", 400, "invalid_request"),
        ("jobs/echo/", MULTIPART, b"x" * 70_000, 413, "too_large"),
        ("jobs/echo/", FORM, b"a=" + b"b" * 3_000_000, 413, "too_large"),
        ("jobs/echo/", FORM, b"&".join([b"a=b"] * 1500), 400, "invalid_request"),
        ("jobs/echo/", FORM, b"a=b", 415, "unsupported_media_type"),
    ],
)
def test_forms_are_refused(
    http: Client, staff: User, path: str, content_type: str, data: bytes, status: int, code: str
) -> None:
    """The CSRF check parses a form; the response is an error in the common format."""
    grant(staff, "run_job")

    response = http.post(f"/cloudrun_jobs/{path}", data, content_type=content_type, headers=csrf(http))

    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert response["Cache-Control"] == "no-store"
    assert not JobRun.objects.exists()


def test_form_that_a_middleware_has_parsed_is_refused(http: Client, staff: User, settings: Any) -> None:
    """The body cannot be read again."""
    grant(staff, "run_job")
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "tests.http_api.test_sessions.parse_form"]

    response = http.post("/cloudrun_jobs/jobs/echo/", FIELD, content_type=MULTIPART, headers=csrf(http))

    assert (response.status_code, response.json()["error"]["code"]) == (415, "unsupported_media_type")


def parse_form(get_response: Any) -> Any:
    """Read the form of each request, as some middlewares do."""

    def middleware(request: Any) -> Any:
        request.POST.get("a")
        return get_response(request)

    return middleware


def test_token_needs_no_csrf_token(http: Client, staff: User) -> None:
    """A token is not sent by browsers on their own."""
    assert post(http, **{"x-token": secret("all")}).status_code == 202
    assert JobRun.objects.get().requested_by == "token all"


def test_invalid_token_does_not_fall_back_to_the_session(http: Client, staff: User) -> None:
    """A request with a wrong credential is rejected, whoever is signed in."""
    grant(staff, "view_jobrun")

    assert http.get("/cloudrun_jobs/jobs/", headers={"x-token": "wrong"}).status_code == 401


@pytest.mark.parametrize("change", [{"is_staff": False}, {"is_active": False}])
def test_other_users_are_rejected(http: Client, staff: User, change: dict[str, bool]) -> None:
    """Only active members of staff count."""
    grant(staff, "view_jobrun")
    User.objects.update(**change)

    assert http.get("/cloudrun_jobs/jobs/").status_code == 401


def test_session_is_not_a_credential_unless_configured(http: Client, staff: User, settings: Any) -> None:
    """By default, tokens and ID tokens are the only credentials."""
    grant(staff, "view_jobrun")
    settings.CLOUDRUN_JOBS = configured()

    assert http.get("/cloudrun_jobs/jobs/").status_code == 401


def test_session_that_cannot_be_read_is_unavailable(
    http: Client, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions are in the database, which may be down; public health does without a caller then."""

    def load(self: SessionStore) -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr(SessionStore, "load", load)
    settings.CLOUDRUN_JOBS = configured(SESSION=True, HEALTH="public")
    http.cookies["sessionid"] = "a" * 32

    response = http.get("/cloudrun_jobs/jobs/")

    assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")
    assert "refused" not in response.text
    assert (http.get("/cloudrun_jobs/health/").status_code, http.get("/cloudrun_jobs/health/").content) == (
        200,
        b"",
    )
