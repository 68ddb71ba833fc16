"""The page, and the form that starts the job: closed by default, and never a traceback."""

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
    """Return a client that is logged in as a member of staff."""
    client.force_login(User.objects.create(username="ada", is_staff=True))
    return client


def submit(client: Client, **fields: str) -> Any:
    return client.post("/collect/", fields, follow=True)


def test_page_without_rates(client: Client) -> None:
    """Before the first run the page says that there is nothing."""
    assert "No rates yet." in client.get("/").text


def test_page_lists_the_newest_day(client: Client) -> None:
    """Of all rates the page shows those of the last day, as the bank writes them."""
    Rate.objects.create(date=date(2026, 10, 30), currency="IDR", value=Decimal(20000))
    Rate.objects.create(date=date(2026, 10, 29), currency="USD", value=Decimal("1.113"))
    page = client.get("/").text

    assert "30 October 2026" in page
    assert "<span>IDR</span> <span>20000</span>" in page
    assert "USD</span>" not in page


def test_servers_get_the_page(rf: RequestFactory) -> None:
    """What gunicorn loads as `example.wsgi:application` answers with the page."""
    application = import_string("example.wsgi.application")

    assert "No rates yet." in application.get_response(rf.get("/")).text


def test_page_is_only_read(client: Client) -> None:
    """The page takes no POST, and the form no GET."""
    assert client.post("/").status_code == 405
    assert client.get("/collect/").status_code == 405


def test_strangers_start_nothing(client: Client) -> None:
    """Without a login there is no form, and what is posted anyway is refused."""
    assert "<button>Collect" not in client.get("/").text
    assert submit(client, since="2026-10-30").status_code == 403
    assert not Rate.objects.exists()


def test_users_who_are_no_staff_start_nothing(client: Client) -> None:
    """A login alone is not enough."""
    client.force_login(User.objects.create(username="bob"))

    assert submit(client).status_code == 403
    assert not Rate.objects.exists()


def test_debug_opens_the_form(client: Client, settings: Settings) -> None:
    """On one's own machine anybody may start the job."""
    settings.DEBUG = True

    assert "<button>Collect" in client.get("/").text
    assert submit(client, since="2026-10-30", currencies="USD").status_code == 200
    assert Rate.objects.count() == 1


def test_forms_of_other_sites_start_nothing() -> None:
    """Without its token the form is refused, even from a member of staff."""
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create(username="ada", is_staff=True))

    assert submit(client).status_code == 403


def test_shows_the_counts_of_a_run_in_this_process(staff: Client) -> None:
    """The job has run when the page returns, and the rates are on it."""
    page = submit(staff, since="2026-10-29", currencies="usd, jpy").text

    assert "Collected: 4 rates read, 4 new, 0 different." in page
    assert "<span>USD</span> <span>1.1172</span>" in page


def test_shows_the_execution_of_a_run_in_the_cloud(staff: Client, cloud: list[Request]) -> None:
    """The page links the execution, escaped, under its full name."""
    page = submit(staff, currencies="USD").text

    (request,) = cloud
    assert request.argv == ("collect_rates", "--currency=USD")
    assert 'href="https://console.example/executions?project=acme&amp;id=x7k2p"' in page
    assert f"/executions/collect-rates-production-{request.run_id[:5]}</a>" in page


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"since": "soon"}, "Enter a valid date."),
        ({"currencies": "USD <b>"}, "got &#x27;&lt;B&gt;&#x27;."),
        ({"currencies": "--source=/etc/passwd"}, "Expected codes of three letters such as USD"),
        ({"currencies": "USD " * 60}, "at most 200 characters"),
    ],
)
def test_bad_fields_are_told_and_start_nothing(
    staff: Client, cloud: list[Request], fields: dict[str, str], words: str
) -> None:
    """What is wrong stands beside the field, and no execution is paid for."""
    answer = submit(staff, **fields)

    assert answer.status_code == 400
    assert words in answer.text.replace("&#39;", "&#x27;")
    assert cloud == []


def test_errors_of_the_job_are_messages(staff: Client) -> None:
    """An error of the input, found by the job, is a sentence on the page."""
    answer = submit(staff, currencies="USB")

    assert answer.status_code == 200
    assert "The source has no currency &#x27;USB&#x27;. Did you mean &#x27;USD&#x27;?" in answer.text


@pytest.mark.usefixtures("transactional_db")
def test_errors_of_the_cloud_are_messages(staff: Client, settings: Settings) -> None:
    """An error of the service is a sentence on the page, escaped, with the remedy."""
    path = "tests.example.backends.RefusingBackend"
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "production", "BACKEND": path}
    answer = submit(staff)

    assert answer.status_code == 200
    assert "collect-rates-production: &lt;no such job&gt;. Create it." in answer.text


def test_errors_of_the_settings_are_messages(staff: Client, settings: Settings) -> None:
    """Settings that lack the project are told on the page."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "production"}

    assert "CLOUDRUN_JOBS[&#x27;REGION&#x27;]: required" in submit(staff).text


def test_login_page_leads_back(client: Client) -> None:
    """Staff can log in and out without the admin."""
    User.objects.create_user("ada", password="correct horse", is_staff=True)
    login = {"username": "ada", "password": "correct horse"}

    assert "<button>Collect" in client.post("/login/?next=/", login, follow=True).text
    assert "Log in</a> as a member of staff" in client.post("/logout/", follow=True).text
