"""The page and the form that starts the job: permissions, outcomes and errors."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client, RequestFactory
from django.utils.module_loading import import_string
from pytest_django.fixtures import Settings

from cloudrun_jobs.backends import Request
from rates.models import Rate

pytestmark = pytest.mark.django_db


@pytest.fixture
def staff(client: Client) -> Client:
    """Return a client that is logged in as staff."""
    client.force_login(User.objects.create(username="ada", is_staff=True))
    return client


def submit(client: Client, **fields: str) -> Any:
    return client.post("/collect/", fields, follow=True)


def test_page_without_rates(client: Client) -> None:
    """Before the first run the page shows that there are no rates."""
    assert "No rates yet." in client.get("/").text


def test_page_lists_the_newest_day(client: Client) -> None:
    """The page shows the rates of the last day, as the bank writes them."""
    Rate.objects.create(date=date(2026, 10, 30), currency="IDR", value=Decimal(20000))
    Rate.objects.create(date=date(2026, 10, 29), currency="USD", value=Decimal("1.113"))
    page = client.get("/").text

    assert "30 October 2026" in page
    assert "<span>IDR</span> <span>20000</span>" in page
    assert "USD</span>" not in page


def test_wsgi_application_serves_the_page(rf: RequestFactory) -> None:
    """`example.wsgi:application` responds with the page."""
    application = import_string("example.wsgi.application")

    assert "No rates yet." in application.get_response(rf.get("/")).text


def test_wrong_method_is_rejected(client: Client) -> None:
    """The page accepts no POST, and the form no GET."""
    assert client.post("/").status_code == 405
    assert client.get("/collect/").status_code == 405


def test_anonymous_post_is_rejected(client: Client) -> None:
    """Without a login there is no form, and a POST is forbidden."""
    assert "<button>Collect" not in client.get("/").text
    assert submit(client, since="2026-10-30").status_code == 403
    assert not Rate.objects.exists()


def test_post_without_staff_status_is_rejected(client: Client) -> None:
    """A login without staff status is forbidden."""
    client.force_login(User.objects.create(username="bob"))

    assert submit(client).status_code == 403
    assert not Rate.objects.exists()


def test_debug_opens_the_form(client: Client, settings: Settings) -> None:
    """In DEBUG an anonymous user may start the job."""
    settings.DEBUG = True

    assert "<button>Collect" in client.get("/").text
    assert submit(client, since="2026-10-30", currencies="USD").status_code == 200
    assert Rate.objects.count() == 1


def test_cross_site_post_is_rejected() -> None:
    """A POST without the CSRF token is forbidden, even for staff."""
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create(username="ada", is_staff=True))

    assert submit(client).status_code == 403


def test_shows_the_counts_of_an_inline_run(staff: Client) -> None:
    """An inline job has ended when the page returns, and the page shows its rates."""
    page = submit(staff, since="2026-10-29", currencies="usd, jpy").text

    assert "Collected: 4 rates read, 4 new, 0 different." in page
    assert "<span>USD</span> <span>1.1172</span>" in page


def test_shows_the_execution_of_a_cloud_run(staff: Client, cloud: list[Request]) -> None:
    """The page links the execution under its full name, escaped."""
    page = submit(staff, currencies="USD").text

    (request,) = cloud
    assert request.argv == ("collect_rates", "--currency=USD")
    assert 'href="https://console.example/executions?project=acme&amp;id=x7k2p"' in page
    assert f"/executions/collect-rates-production-{request.run_id[:5]}</a>" in page


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"since": "soon"}, "Enter a valid date."),
        ({"currencies": "USD <b>"}, "got &#x27;&lt;B&gt;&#x27;."),
        ({"currencies": "--source=/etc/passwd"}, "Expected codes of three letters such as USD"),
        ({"currencies": "USD " * 60}, "at most 200 characters"),
    ],
)
def test_invalid_field_starts_no_execution(
    staff: Client, cloud: list[Request], fields: dict[str, str], message: str
) -> None:
    """The page shows the error, and no execution is started."""
    answer = submit(staff, **fields)

    assert answer.status_code == 400
    assert message in answer.text.replace("&#39;", "&#x27;")
    assert cloud == []


def test_error_of_the_job_is_shown(staff: Client) -> None:
    """The page shows an error that the job raises for its input."""
    answer = submit(staff, currencies="USB")

    assert answer.status_code == 200
    assert "The source has no currency &#x27;USB&#x27;. Did you mean &#x27;USD&#x27;?" in answer.text


@pytest.mark.usefixtures("transactional_db")
def test_error_of_the_service_is_shown(staff: Client, settings: Settings) -> None:
    """The page shows an error of the service and its hint, escaped."""
    path = "tests.example.backends.RejectingBackend"
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "production", "BACKEND": path}
    answer = submit(staff)

    assert answer.status_code == 200
    assert "collect-rates-production: &lt;no such job&gt;. Create it." in answer.text


def test_error_of_the_settings_is_shown(staff: Client, settings: Settings) -> None:
    """The page shows that the settings lack the region."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "production"}

    assert "CLOUDRUN_JOBS[&#x27;REGION&#x27;]: required" in submit(staff).text


def test_login_and_logout_return_to_the_page(client: Client) -> None:
    """Staff can log in and out without the admin."""
    User.objects.create_user("ada", password="correct horse", is_staff=True)
    login = {"username": "ada", "password": "correct horse"}

    assert "<button>Collect" in client.post("/login/?next=/", login, follow=True).text
    assert "Log in</a> as a member of staff" in client.post("/logout/", follow=True).text
